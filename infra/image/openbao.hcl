# OpenBao for custody alone: TLS, integrated storage, unsealed by the key in a file. A cloud's key service is better where there is one.
ui           = false
api_addr     = "https://openbao:8200"
cluster_addr = "https://openbao:8201"

storage "raft" {
  path    = "/openbao/data"
  node_id = "one"
}

listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/run/secrets/openbao-certificate"
  tls_key_file  = "/run/secrets/openbao-key"
}

seal "static" {
  current_key_id = "1"
  current_key    = "file:///run/secrets/openbao-seal"
}
