"""HAProxy's configuration as text. Pure: nothing is read, written or asked."""
