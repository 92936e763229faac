"""HAProxy's configuration as text. Pure: no files, sockets or processes are used."""
