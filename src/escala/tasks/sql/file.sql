-- $1 job, $2 names, $3 media types, $4 contents
insert into escala.job_file (job, name, media_type, content)
select $1, name, media_type, content from unnest($2::text[], $3::text[], $4::bytea[]) as file (name, media_type, content)
