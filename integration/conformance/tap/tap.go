// Package tap prints test results as TAP version 13: what the validation programs need of a package that Debian does not have.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T counts the results that it prints, to standard output unless Writer is set.
type T struct {
	Writer io.Writer
	count  *int
	todo   string
}

// New begins a list of results.
func New() *T { return &T{count: new(int)} }

func (t *T) print(format string, words ...interface{}) {
	out := t.Writer
	if out == nil {
		out = os.Stdout
	}
	fmt.Fprintf(out, format, words...)
}

// Header prints the version, and the plan where the number of results is known.
func (t *T) Header(count int) {
	t.print("TAP version 13\n")
	if count > 0 {
		t.print("1..%d\n", count)
	}
}

// AutoPlan prints the plan at the end.
func (t *T) AutoPlan() { t.print("1..%d\n", *t.count) }

// Ok prints one result.
func (t *T) Ok(passed bool, what string) {
	*t.count++
	word := "ok"
	if !passed {
		word = "not ok"
	}
	t.print("%s %d%s - %s\n", word, *t.count, t.todo, oneLine(what))
}

// Pass prints a result that is good.
func (t *T) Pass(what string) { t.Ok(true, what) }

// Fail prints a result that is not.
func (t *T) Fail(what string) { t.Ok(false, what) }

// Skip prints results that were not looked for.
func (t *T) Skip(count int, why string) {
	for ; count > 0; count-- {
		*t.count++
		t.print("ok %d # SKIP %s\n", *t.count, oneLine(why))
	}
}

// Todo is the same list, for results that may be bad.
func (t *T) Todo() *T { return &T{Writer: t.Writer, count: t.count, todo: " # TODO"} }

// Count is the number of results so far.
func (t *T) Count() int { return *t.count }

// Diagnostic prints a remark.
func (t *T) Diagnostic(text string) {
	t.print("# %s\n", strings.ReplaceAll(text, "\n", "\n# "))
}

// Diagnosticf prints a remark.
func (t *T) Diagnosticf(format string, words ...interface{}) { t.Diagnostic(fmt.Sprintf(format, words...)) }

// YAML prints what belongs to the last result; JSON is YAML.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err == nil {
		t.print("  ---\n  %s\n  ...\n", text)
	}
	return err
}

func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "\\n") }
