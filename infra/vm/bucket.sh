# shellcheck shell=bash
# Writing to the run's bucket with the VM's own account: for the scripts beside this one, which source it.
# The token passes through pipes and never through a command line, which every user of the machine can read.

token() {
    curl --fail --silent --show-error --noproxy '*' --max-time 10 --header 'Metadata-Flavor: Google' \
        "http://${GCE_METADATA_HOST:-metadata.google.internal}/computeMetadata/v1/instance/service-accounts/default/token" |
        sed -n 's/.*"access_token" *: *"\([^"]*\)".*/\1/p'
}

# put FILE OBJECT TYPE: writes an object of the bucket (gs://BUCKET/NAME) over.
put() {
    local authorization
    authorization="header = \"Authorization: Bearer $(token)\""
    curl --fail --silent --show-error --max-time 20 --config - --upload-file "$1" --header "Content-Type: $3" \
        "${STORAGE_EMULATOR_HOST:-https://storage.googleapis.com}/${2#gs://}" <<< "$authorization" > /dev/null
}
