-- The keys of blocked jobs, each found by the index.
with recursive name as (
    (select limit_key from escala.job where limit_key is not null and state = 'blocked' order by limit_key limit 1)
    union all
    select (select limit_key from escala.job where limit_key > name.limit_key and state = 'blocked'
            order by limit_key limit 1)
    from name where name.limit_key is not null
)
select limit_key from name where limit_key is not null
