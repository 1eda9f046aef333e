// load creates Pods as fast as an API server takes them, for `make bench-admission`: so many workers, each with a
// connection of its own, for so many seconds. It prints JSON: how many were created and how long each took.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"sync"
	"time"
)

func client(folder string) (*http.Client, error) {
	authority, err := os.ReadFile(folder + "/ca.crt")
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	own, err := tls.LoadX509KeyPair(folder+"/admin.crt", folder+"/admin.key")
	if err != nil {
		return nil, err
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{own}},
		MaxIdleConnsPerHost: 1000,
	}}, nil
}

func create(with *http.Client, url string, pod []byte) error {
	answer, err := with.Post(url, "application/json", bytes.NewReader(pod))
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusCreated {
		return fmt.Errorf("%s: %s", answer.Status, said)
	}
	return nil
}

func main() {
	pki := flag.String("pki", "", "folder with ca.crt, admin.crt and admin.key")
	url := flag.String("url", "", "of the collection to create in")
	path := flag.String("pod", "", "file with the Pod in JSON")
	workers := flag.Int("workers", 1, "")
	span := flag.Duration("for", time.Second, "")
	flag.Parse()
	pod, err := os.ReadFile(*path)
	if err != nil {
		log.Fatal(err)
	}
	with, err := client(*pki)
	if err != nil {
		log.Fatal(err)
	}
	took := make([][]float64, *workers)
	failed := make([]error, *workers)
	var done sync.WaitGroup
	begun := time.Now()
	for worker := range *workers {
		done.Go(func() {
			for time.Since(begun) < *span {
				since := time.Now()
				if err := create(with, *url, pod); err != nil {
					failed[worker] = err
					return
				}
				took[worker] = append(took[worker], float64(time.Since(since).Microseconds())/1000)
			}
		})
	}
	done.Wait()
	lasted := time.Since(begun).Seconds()
	var all []float64
	for worker := range *workers {
		if failed[worker] != nil {
			log.Fatal(failed[worker])
		}
		all = append(all, took[worker]...)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]any{"seconds": lasted, "milliseconds": all})
}
