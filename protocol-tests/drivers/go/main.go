// Command conform runs scenarios.json by go-mssqldb and prints one JSON line per scenario (../README.md).
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// Longest login and longest answer.
const answerDeadline = 60 * time.Second

type settings struct {
	host, port, user, password, database string
	encryption, ca, tag                  string
}

type scenario struct {
	Name  string `json:"name"`
	Steps []step `json:"steps"`
}

type outcome struct {
	Scenario    string       `json:"scenario"`
	OK          bool         `json:"ok"`
	Result      []any        `json:"result"`
	Error       *serverError `json:"error"`
	Unsupported string       `json:"unsupported,omitempty"`
}

// Ends a scenario: what the driver cannot do, said in one sentence.
type unsupported string

func (u unsupported) Error() string { return string(u) }

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "conform:", err)
		os.Exit(1)
	}
}

func run() error {
	var to settings
	flag.StringVar(&to.host, "host", "localhost", "server")
	flag.StringVar(&to.port, "port", "1433", "its port")
	flag.StringVar(&to.user, "user", "", "SQL login")
	flag.StringVar(&to.password, "password", "", "its password")
	flag.StringVar(&to.database, "database", "", "database")
	flag.StringVar(&to.encryption, "encryption", "none", "none, login-only, on, required or strict")
	flag.StringVar(&to.ca, "ca", "", "PEM of the server's certificate")
	flag.StringVar(&to.tag, "tag", "", "what {tag} stands for")
	file := flag.String("file", "scenarios.json", "the scenarios")
	names := flag.String("scenarios", "", "which of them, with commas")
	flag.Parse()
	text, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	var book struct {
		Scenarios []scenario `json:"scenarios"`
	}
	if err := json.Unmarshal(text, &book); err != nil {
		return fmt.Errorf("%s: %w", *file, err)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	lines := bufio.NewReader(os.Stdin)
	for _, name := range strings.Split(*names, ",") {
		at := find(book.Scenarios, name)
		if at == nil {
			return fmt.Errorf("%s has no scenario %q", *file, name)
		}
		if err := out.Encode(play(to, at, out, lines)); err != nil {
			return err
		}
	}
	return nil
}

func find(all []scenario, name string) *scenario {
	for at := range all {
		if all[at].Name == name {
			return &all[at]
		}
	}
	return nil
}

// play runs one scenario on a connection of its own.
func play(to settings, of *scenario, out *json.Encoder, lines *bufio.Reader) outcome {
	result := outcome{Scenario: of.Name, Result: []any{}}
	session, err := open(to)
	if err == nil {
		defer session.close()
		session.out, session.lines = out, lines
		for at := range of.Steps {
			var reply any
			if reply, err = session.do(&of.Steps[at]); err != nil {
				err = fmt.Errorf("step %d: %w", at+1, err)
				break
			}
			result.Result = append(result.Result, reply)
		}
	}
	switch lacking, ok := lackOf(err); {
	case err == nil:
		result.OK = true
	case ok:
		result.Result, result.Unsupported = nil, string(lacking)
	default:
		result.Error = described(err)
		if result.Error.Number == 0 {
			result.Error.Message = err.Error()
		}
	}
	return result
}

func withDeadline() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), answerDeadline)
}
