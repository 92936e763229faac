select media_type, content from escala.job_file where job = $1 and name = $2
