-- $1 key
select job from escala.unique_job where key = $1
