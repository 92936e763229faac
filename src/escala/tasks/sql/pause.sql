insert into escala.paused_queue (name) values ($1) on conflict do nothing returning true
