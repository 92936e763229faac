-- Run this after the rows are loaded: checking a key once for a whole table is much faster than checking every row.

alter table flights add primary key (id);
alter table flights add foreign key (carrier) references airlines;
alter table flights add foreign key (origin) references airports;
create index on flights (origin, month, day, sched_dep_time, id);
create index on flights (month, carrier);
-- When the clocks were turned back, the same hour occurred twice. So weather has an index here, not a unique key.
create index on weather (origin, year, month, day, hour);
analyze;
