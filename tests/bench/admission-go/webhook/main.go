// webhook is the yardstick of `make bench-admission`: what the project's webhook does for a Pod that is created, in Go's
// own way and with its standard library: it reads the AdmissionReview, checks and normalises the two annotations with
// exact rationals, injects the namespace's network, labels the Pod, and answers with a JSON patch.
//
// It serves on the address given, with a certificate that it makes for the name given, and prints that in PEM. The
// namespaces that have a network are given too (the project's webhook watches them): "NAMESPACE=NETWORK".
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"
)

const (
	ingress = "kubernetes.io/ingress-bandwidth"
	egress  = "kubernetes.io/egress-bandwidth"
	network = "v1.multus-cni.io/default-network"
	managed = "ipvlan-bandwidth.io/managed"

	largestReview = 8 << 20
)

type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID       string `json:"uid"`
	Operation string `json:"operation"`
	Namespace string `json:"namespace"`
	Object    *pod   `json:"object"`
}

type pod struct {
	Metadata struct {
		Annotations map[string]string `json:"annotations"`
		Labels      map[string]string `json:"labels"`
	} `json:"metadata"`
	Spec struct {
		HostNetwork bool `json:"hostNetwork"`
	} `json:"spec"`
}

type response struct {
	UID       string  `json:"uid"`
	Allowed   bool    `json:"allowed"`
	Status    *status `json:"status,omitempty"`
	PatchType string  `json:"patchType,omitempty"`
	Patch     []byte  `json:"patch,omitempty"`
}

type status struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

var (
	quantity = regexp.MustCompile(`^([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))([numkMGTPE]|[KMGTPE]i|)$`)
	powers   = map[string][2]int64{
		"n": {10, -9}, "u": {10, -6}, "m": {10, -3}, "": {10, 0}, "k": {10, 3}, "M": {10, 6}, "G": {10, 9},
		"T": {10, 12}, "P": {10, 15}, "E": {10, 18}, "Ki": {2, 10}, "Mi": {2, 20}, "Gi": {2, 30}, "Ti": {2, 40},
		"Pi": {2, 50}, "Ei": {2, 60},
	}
	smallest = big.NewInt(1_000)
	largest  = big.NewInt(1_000_000_000_000_000)
	thousand = big.NewInt(1_000)
)

// normal is the normal form of a limit: the whole number of bits per second with its largest decimal suffix.
func normal(text string) (string, error) {
	parts := quantity.FindStringSubmatch(text)
	if len(text) > 64 || parts == nil {
		return "", fmt.Errorf("%q is no quantity", text)
	}
	exact, _ := new(big.Rat).SetString(strings.TrimSuffix(parts[1], "."))
	base, exponent := powers[parts[2]][0], powers[parts[2]][1]
	factor := new(big.Rat).SetInt(new(big.Int).Exp(big.NewInt(base), big.NewInt(max(exponent, -exponent)), nil))
	if exponent < 0 {
		factor.Inv(factor)
	}
	exact.Mul(exact, factor)
	bits, rest := new(big.Int).QuoRem(exact.Num(), exact.Denom(), new(big.Int))
	if rest.Sign() > 0 {
		bits.Add(bits, big.NewInt(1))
	}
	if bits.Cmp(smallest) < 0 || bits.Cmp(largest) > 0 {
		return "", fmt.Errorf("%q is not between 1k and 1P", text)
	}
	suffix := 0
	for ; suffix < 5; suffix++ {
		quotient, rest := new(big.Int).QuoRem(bits, thousand, new(big.Int))
		if rest.Sign() != 0 {
			break
		}
		bits = quotient
	}
	return bits.String() + []string{"", "k", "M", "G", "T", "P"}[suffix], nil
}

func pointer(path, key string) string {
	return path + "/" + strings.ReplaceAll(strings.ReplaceAll(key, "~", "~0"), "/", "~1")
}

// set are the operations that give a map these values, where they are not there already.
func set(path string, before map[string]string, keys []string, values map[string]string) []operation {
	var operations []operation
	for _, key := range keys {
		value, wanted := values[key]
		old, present := before[key]
		switch {
		case !wanted || present && old == value:
		case present:
			operations = append(operations, operation{"replace", pointer(path, key), value})
		default:
			operations = append(operations, operation{"add", pointer(path, key), value})
		}
	}
	if len(operations) > 0 && before == nil {
		operations = append([]operation{{"add", path, map[string]string{}}}, operations...)
	}
	return operations
}

func answer(asked *request, networks map[string]string) (*response, error) {
	said := &response{UID: asked.UID, Allowed: true}
	if asked.Operation != "CREATE" || asked.Object == nil {
		return said, nil
	}
	meta := asked.Object.Metadata
	values := map[string]string{}
	limited := false
	var problems []string
	for _, key := range []string{ingress, egress} {
		text, found := meta.Annotations[key]
		if !found {
			continue
		}
		limit, err := normal(text)
		if err != nil || asked.Object.Spec.HostNetwork {
			problems = append(problems, fmt.Sprintf("annotation %s: %v", key, err))
			continue
		}
		values[key] = limit
		limited = true
	}
	if len(problems) > 0 {
		said.Allowed = false
		said.Status = &status{Code: 422, Message: strings.Join(problems, " ")}
		return said, nil
	}
	if _, chosen := meta.Annotations[network]; !chosen && networks[asked.Namespace] != "" {
		values[network] = networks[asked.Namespace]
	}
	patch := set("/metadata/annotations", meta.Annotations, []string{ingress, egress, network}, values)
	if limited {
		patch = append(patch, set("/metadata/labels", meta.Labels, []string{managed}, map[string]string{managed: "true"})...)
	}
	if len(patch) > 0 {
		encoded, err := json.Marshal(patch)
		if err != nil {
			return nil, err
		}
		said.PatchType, said.Patch = "JSONPatch", encoded
	}
	return said, nil
}

func handler(networks map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
			http.Error(w, "expected a POST of application/json", http.StatusUnsupportedMediaType)
			return
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, largestReview))
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
			return
		}
		var asked review
		if err := json.Unmarshal(body, &asked); err != nil || asked.Request == nil {
			http.Error(w, fmt.Sprintf("no AdmissionReview: %v", err), http.StatusBadRequest)
			return
		}
		said, err := answer(asked.Request, networks)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		encoded, err := json.Marshal(review{APIVersion: asked.APIVersion, Kind: asked.Kind, Response: said})
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(encoded)
	}
}

func certificate(name string) (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: "bench"},
		DNSNames:              []string{name},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	made, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made})
	return tls.Certificate{Certificate: [][]byte{made}, PrivateKey: key}, encoded, nil
}

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: webhook ADDRESS:PORT NAME [NAMESPACE=NETWORK ...]")
	}
	networks := map[string]string{}
	for _, argument := range os.Args[3:] {
		namespace, found, _ := strings.Cut(argument, "=")
		networks[namespace] = found
	}
	served, encoded, err := certificate(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	io.Copy(os.Stdout, bytes.NewReader(encoded))
	mux := http.NewServeMux()
	mux.HandleFunc("/mutate", handler(networks))
	server := &http.Server{
		Addr:              os.Args[1],
		Handler:           mux,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       10 * time.Second,
		IdleTimeout:       120 * time.Second,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{served}, MinVersion: tls.VersionTLS12},
	}
	log.Fatal(server.ListenAndServeTLS("", ""))
}
