package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
)

// The parts of CycloneDX 1.5 that are used. The JSON names are its own.
type (
	document struct {
		Format     string      `json:"bomFormat"`
		Spec       string      `json:"specVersion"`
		Version    int         `json:"version"`
		Metadata   metadata    `json:"metadata"`
		Components []component `json:"components"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type       string      `json:"type"`
		Ref        string      `json:"bom-ref,omitempty"`
		Name       string      `json:"name"`
		Version    string      `json:"version,omitempty"`
		PURL       string      `json:"purl,omitempty"`
		Hashes     []hash      `json:"hashes,omitempty"`
		Components []component `json:"components,omitempty"`
		Properties []property  `json:"properties,omitempty"`
	}
	hash struct {
		Alg     string `json:"alg"`
		Content string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
)

// bill is the document. It holds no time: the same programs give the same bill. Programs go by their file names.
func bill(version, toolchain string, mods []*debug.Module, programs []string) ([]byte, error) {
	duet := component{Type: "application", Ref: "duet", Name: "duet", Version: version}
	for _, p := range programs {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, fmt.Errorf("sum of a program: %w", err)
		}
		sum := sha256.Sum256(b)
		duet.Components = append(duet.Components, component{Type: "file", Name: filepath.Base(p),
			Hashes: []hash{{"SHA-256", hex.EncodeToString(sum[:])}}})
	}
	doc := document{Format: "CycloneDX", Spec: "1.5", Version: 1, Metadata: metadata{duet}}
	doc.Components = append(doc.Components, library("std", strings.TrimPrefix(toolchain, "go"), ""))
	for _, m := range mods {
		doc.Components = append(doc.Components, library(m.Path, m.Version, m.Sum))
	}
	b, err := json.MarshalIndent(doc, "", "  ")
	return append(b, '\n'), err
}

// library is one Go module. Its sum is go.sum's, over the module's zip, which is none of CycloneDX's hashes of a
// file: so it is a property. "+" in a version is escaped, as package URLs want it.
func library(path, version, sum string) component {
	purl := "pkg:golang/" + path + "@" + strings.ReplaceAll(version, "+", "%2B")
	c := component{Type: "library", Ref: purl, Name: path, Version: version, PURL: purl}
	if sum != "" {
		c.Properties = []property{{"go:sum", sum}}
	}
	return c
}
