-- $1 a service. The tasks of the living workers of other services.
select distinct on (split_part(replica, '/', 1)) split_part(replica, '/', 1) as service, tasks::text
from escala.worker
where split_part(replica, '/', 1) <> $1 and lease_until > now()
order by split_part(replica, '/', 1), started_at desc
