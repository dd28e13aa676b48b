# Sourced by the servers' scripts.
# shellcheck shell=bash

# tls DIR: a CA of its own (ca.pem), and a certificate that it signs for localhost and 127.0.0.1 (server.crt, server.key); made once.
tls() {
	[ -s "$1/server.crt" ] && return
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj '/CN=test CA' -keyout "$1/ca.key" -out "$1/ca.pem"
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout "$1/server.key" -out "$1/server.csr"
	openssl x509 -req -in "$1/server.csr" -CA "$1/ca.pem" -CAkey "$1/ca.key" -CAcreateserial -days 3650 -out "$1/server.crt" \
		-extfile <(echo 'subjectAltName=DNS:localhost,IP:127.0.0.1')
	chmod 600 "$1/server.key"
}
