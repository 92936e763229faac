-- $1 owner
delete from escala.worker where owner = $1
