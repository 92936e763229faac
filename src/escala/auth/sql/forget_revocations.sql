delete from escala.revocation where expires_at <= now()
