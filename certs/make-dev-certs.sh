#!/bin/sh
# Makes a development certificate authority, a server certificate for loopback names and a client certificate.
# Development only: see README.md. Needs openssl 1.1.1 or later.
set -eu
umask 077
cd "$(dirname "$0")"

days=30
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# issue NAME SUBJECT EXTENSIONS: NAME.key and NAME.pem (with the authority's certificate behind it)
issue() {
    key "$work/$1.key"
    printf '%s\n' "$3" >"$work/$1.ext"
    openssl req -new -key "$work/$1.key" -subj "$2" -out "$work/$1.csr"
    openssl x509 -req -in "$work/$1.csr" -CA "$work/dev-ca.pem" -CAkey "$work/dev-ca.key" \
        -set_serial "0x$(openssl rand -hex 15)" -days "$days" -sha256 -extfile "$work/$1.ext" \
        -out "$work/$1.pem" 2>/dev/null
    cat "$work/dev-ca.pem" >>"$work/$1.pem"
}

key "$work/dev-ca.key"
openssl req -x509 -new -key "$work/dev-ca.key" -subj "/CN=Chartgate development CA" -days "$days" -sha256 \
    -addext "keyUsage=critical,keyCertSign,cRLSign" -out "$work/dev-ca.pem"

issue server "/CN=localhost" "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"

issue client "/CN=development client" "basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=clientAuth
subjectAltName=DNS:client.localhost"

openssl verify -CAfile "$work/dev-ca.pem" "$work/server.pem" "$work/client.pem" >/dev/null
# The key goes first: whoever reads between the two moves keeps the last good pair.
for name in dev-ca server client; do
    mv "$work/$name.key" "$work/$name.pem" .
done
echo "made dev-ca, server and client in $(pwd), good for $days days"
