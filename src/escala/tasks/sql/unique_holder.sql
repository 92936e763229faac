-- $1 key
select job from escala.unique_job where key = cast($1 as text)
