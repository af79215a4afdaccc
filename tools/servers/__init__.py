"""Servers for the integration tests: found, or started and ended again.

For each service the first of these that works is used:

1. the url in its environment variable; if that one does not answer, fail;
2. a private server that an earlier `up` started in the same folder;
3. a server on the standard port that lets us in without a password that we do not have, and make a
   namespace of our own; the namespace is dropped at the end, and nothing outside it is touched;
4. a private server from installed binaries: free loopback ports, its own folder, an unprivileged
   user;
5. Debian or Ubuntu as root: the packages are installed without being started, then as 4;
6. docker compose, with tools/compose.yaml.

A private server lives under a keeper (see keeper.py) and cannot outlive its owner. Everything is
written under the folder ``.services``, except where an unprivileged server user cannot reach it:
then under the system's folder for temporary files. Every failure is one line with the cause and one
with the next command.

`service` says what one kind of server has to know; `rabbitmq`, `redis`, `postgresql` and `mariadb`
know it; `private` starts and ends a server, `obtaining` looks for one in the order above, and
`running` does so for all of them at the same time.
"""
