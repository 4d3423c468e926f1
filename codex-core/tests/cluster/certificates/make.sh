#!/bin/sh
# Makes the certificates of the tests with openssl. They are kept, so that a test needs no openssl:
# run this again in 2045. No authority outside of the tests knows them.
set -eu
cd "$(dirname "$0")"
rm -f ./*.pem
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
touch "$scratch/index"
cat > "$scratch/config" <<CONFIG
[ca]
default_ca = tests
[tests]
database = $scratch/index
new_certs_dir = $scratch
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
organizationName = optional
commonName = optional
[req]
distinguished_name = none
[none]
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, keyCertSign
[server]
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth, clientAuth
[client]
extendedKeyUsage = clientAuth
CONFIG
key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1.key.pem" 2>/dev/null
}
# authority NAME
authority() {
    key "$1"
    openssl req -new -key "$1.key.pem" -subj "/O=CodexDB tests/CN=$1" \
        -config "$scratch/config" -out "$scratch/request"
    openssl ca -batch -notext -config "$scratch/config" -extensions authority -selfsign \
        -startdate "$first" -enddate "$last" -keyfile "$1.key.pem" -in "$scratch/request" \
        -out "$1.pem" 2>/dev/null
}
# signed AUTHORITY NAME SUBJECT EXTENSIONS FIRST LAST
signed() {
    key "$2"
    openssl req -new -key "$2.key.pem" -subj "$3" -config "$scratch/config" -out "$scratch/request"
    openssl ca -batch -notext -config "$scratch/config" -extensions "$4" -startdate "$5" \
        -enddate "$6" -cert "$1.pem" -keyfile "$1.key.pem" -in "$scratch/request" -out "$2.pem" \
        2>/dev/null
}
first=20250101000000Z last=20460101000000Z
authority ca
authority other-ca
signed ca server "/O=CodexDB tests" server "$first" "$last"
signed ca expired "/O=CodexDB tests" server 20200101000000Z 20210101000000Z
signed ca client "/O=CodexDB tests" client "$first" "$last"
signed ca client-with-name "/O=CodexDB tests/CN=app" client "$first" "$last"
# Nothing more is signed.
rm -f ca.key.pem other-ca.key.pem
