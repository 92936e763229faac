-- After the rows: a key checked over a whole table costs far less than over every row.

alter table flights add primary key (id);
alter table flights add foreign key (carrier) references airlines;
alter table flights add foreign key (origin) references airports;
create index on flights (origin, month, day, sched_dep_time, id);
create index on flights (month, carrier);
-- Keys of the same hour stand twice where the clock was turned back, so weather has an index, not a key.
create index on weather (origin, year, month, day, hour);
analyze;
