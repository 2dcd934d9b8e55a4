package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"duet/blockrepl/durable"
)

// Folder is the name of the identity in a node's directory.
const Folder = "pki"

// CACert is the certificate of the cluster's authority in an identity directory, the same on all nodes and no secret.
const CACert = "ca.crt"

// The other files of an identity directory.
const (
	caKeyFile    = "ca.key"   // the same on all nodes: each node can admit and renew
	nodeCertFile = "node.crt" // written last; it alone changes later, by Renew
	nodeKeyFile  = "node.key" // of this node, and never leaves it
)

const (
	pemCert = "CERTIFICATE"
	pemKey  = "PRIVATE KEY"
)

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCert, Bytes: der})
}

func encodeKey(key crypto.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), nil
}

func decodePEM(b []byte, kind string) ([]byte, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("no PEM block %q", kind)
	}
	return block.Bytes, nil
}

func decodeCert(b []byte) (*x509.Certificate, error) {
	der, err := decodePEM(b, pemCert)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func decodeKey(b []byte) (*ecdsa.PrivateKey, error) {
	der, err := decodePEM(b, pemKey)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("key is a %T, not ECDSA", key)
	}
	return ec, nil
}

// readCert and readKey name the file in their errors.
func readCert(dir, name string) (*x509.Certificate, error) {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	c, err := decodeCert(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return c, nil
}

func readKey(dir, name string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, name)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	k, err := decodeKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// file is one file to store.
type file struct {
	name string
	data []byte
}

// store writes files into dir, each one atomically and durably, in their order. A crash between two files leaves
// those before: a directory without node.crt counts as empty, and is written over.
func store(dir string, files ...file) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		if err := durable.WriteFile(filepath.Join(dir, f.name), f.data); err != nil {
			return err
		}
	}
	return nil
}

// exists reports whether dir holds an identity; node.crt is written last.
func exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, nodeCertFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
