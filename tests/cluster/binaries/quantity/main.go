// quantity tells what Kubernetes itself reads in a text: the other side of tests/differential.
//
// A line of standard input is a text as a JSON string; a line of standard output is what resource.ParseQuantity makes of
// it: Value(), which is in whole units; all of it, as far as the parser keeps it; and the normal form of Value(). Or
// an error. The parser takes time without bound for large exponents: who asks bounds them.
package main

import (
	"bufio"
	"encoding/json"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/api/resource"
)

type answer struct {
	Value  int64  `json:"value"`
	Exact  string `json:"exact"`
	Normal string `json:"normal"`
	Error  string `json:"error,omitempty"`
}

func read(text string) answer {
	quantity, err := resource.ParseQuantity(text)
	if err != nil {
		return answer{Error: err.Error()}
	}
	value := quantity.Value()
	normal := resource.NewQuantity(value, resource.DecimalSI).String()
	return answer{Value: value, Exact: quantity.AsDec().String(), Normal: normal}
}

func main() {
	lines := bufio.NewReader(os.Stdin)
	answers := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(answers)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var text string
		if err := json.Unmarshal(line, &text); err != nil {
			log.Fatal(err)
		}
		if err := encoder.Encode(read(text)); err != nil {
			log.Fatal(err)
		}
		if err := answers.Flush(); err != nil {
			log.Fatal(err)
		}
	}
}
