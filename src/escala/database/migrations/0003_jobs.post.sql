-- What only the workers of the earlier version used.
drop index escala.job_waiting;
drop index escala.job_lease;
alter table escala.job drop column lease_until;
