# The message of the day, once for each login on a terminal.
[ -t 0 ] && [ "$SHLVL" = 1 ] && cat /etc/motd
