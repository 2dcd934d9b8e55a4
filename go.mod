module duet

go 1.26.0

require (
	github.com/anishathalye/porcupine v1.3.1 // checks histories of reads and writes for lost updates
	github.com/coreos/go-systemd/v22 v22.7.0 // readiness and watchdog notification to systemd
	github.com/danielgtaylor/huma/v2 v2.37.2 // HTTP API with its OpenAPI document generated from the Go types
	github.com/dgraph-io/badger/v4 v4.9.6 // durable store of the dirty log and module state
	github.com/goccy/go-yaml v1.19.2 // module configuration, strict, with line numbers in errors
	github.com/hanwen/go-fuse/v2 v2.12.1 // a file behind a loop device
	github.com/hashicorp/memberlist v0.7.0 // failure detection on each heartbeat network
	github.com/microsoft/wmi v0.38.3 // Hyper-V
	github.com/prometheus-community/pro-bing v0.9.1 // ping target of arbitration
	github.com/prometheus/client_golang v1.25.0 // metrics
	github.com/spf13/cobra v1.10.2 // command line
	github.com/vishvananda/netlink v1.3.1 // network namespaces of the testbed
	github.com/vishvananda/netns v0.0.5 // network namespaces of the testbed
	go.uber.org/goleak v1.3.0 // no goroutine outlives its test
	golang.org/x/sys v0.49.0 // preadv2, fallocate, mlockall, priorities
	libvirt.org/go/libvirt v1.11010.0 // KVM
	libvirt.org/go/libvirtxml v1.11010.0 // domain definitions
)

require (
	github.com/beorn7/perks v1.0.1 // indirect
	github.com/cespare/xxhash/v2 v2.3.0 // indirect
	github.com/cpuguy83/go-md2man/v2 v2.0.6 // indirect
	github.com/dgraph-io/ristretto/v2 v2.2.0 // indirect
	github.com/dustin/go-humanize v1.0.1 // indirect
	github.com/go-logr/logr v1.4.3 // indirect
	github.com/go-logr/stdr v1.2.2 // indirect
	github.com/go-ole/go-ole v1.2.6 // indirect
	github.com/google/btree v1.1.3 // indirect
	github.com/google/flatbuffers v25.2.10+incompatible // indirect
	github.com/google/uuid v1.6.0 // indirect
	github.com/hashicorp/errwrap v1.1.0 // indirect
	github.com/hashicorp/go-immutable-radix v1.3.1 // indirect
	github.com/hashicorp/go-metrics v0.7.0 // indirect
	github.com/hashicorp/go-msgpack/v2 v2.1.5 // indirect
	github.com/hashicorp/go-multierror v1.1.1 // indirect
	github.com/hashicorp/go-sockaddr v1.0.7 // indirect
	github.com/hashicorp/golang-lru v1.0.2 // indirect
	github.com/inconshreveable/mousetrap v1.1.0 // indirect
	github.com/klauspost/compress v1.20.1 // indirect
	github.com/miekg/dns v1.1.73 // indirect
	github.com/munnerz/goautoneg v0.0.0-20191010083416-a7dc8b61c822 // indirect
	github.com/pkg/errors v0.9.1 // indirect
	github.com/prometheus/client_model v0.6.3 // indirect
	github.com/prometheus/common v0.72.0 // indirect
	github.com/prometheus/procfs v0.22.0 // indirect
	github.com/russross/blackfriday/v2 v2.1.0 // indirect
	github.com/sean-/seed v0.0.0-20170313163322-e2103e2c3529 // indirect
	github.com/spf13/pflag v1.0.10 // indirect
	go.opentelemetry.io/auto/sdk v1.2.1 // indirect
	go.opentelemetry.io/otel v1.41.0 // indirect
	go.opentelemetry.io/otel/metric v1.41.0 // indirect
	go.opentelemetry.io/otel/trace v1.41.0 // indirect
	go.yaml.in/yaml/v3 v3.0.5 // indirect
	golang.org/x/net v0.62.0 // indirect; see go mod why
	golang.org/x/sync v0.22.0 // indirect
	google.golang.org/protobuf v1.36.12 // indirect
)
