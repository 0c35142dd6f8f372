#!/usr/bin/env bash
# Brings rsyslog with TLS, once, as a Debian package; exits 3 with the reason where it cannot be had. Starts nothing.
set -euo pipefail
there() { [ -x /usr/sbin/rsyslogd ] && ls /usr/lib/*/rsyslog/lmnsd_gtls.so >/dev/null 2>&1; }
there && exit 0
[ "$(id -u)" = 0 ] || { echo "rsyslog and rsyslog-gnutls are not installed" >&2; exit 3; }
export DEBIAN_FRONTEND=noninteractive
# The package must not start a service of its own.
{ apt-get update -qq && RUNLEVEL=1 apt-get install -y -qq --no-install-recommends rsyslog rsyslog-gnutls; } >&2 \
  || { echo "rsyslog cannot be installed" >&2; exit 3; }
there || { echo "rsyslog has no TLS on this machine" >&2; exit 3; }
