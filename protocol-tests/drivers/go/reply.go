package main

// What came back, in the form that all driver programs share.

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"database/sql/driver"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"

	mssql "github.com/microsoft/go-mssqldb"
)

// Rows of a set that stand in the reply as they are; a set with more has a digest.
const valuesMax = 50

type serverError struct {
	Number  int64  `json:"number"`
	State   int64  `json:"state"`
	Class   int64  `json:"class"`
	Message string `json:"message"`
}

type resultSet struct {
	Columns []string `json:"columns"`
	Rows    int64    `json:"rows"`
	Values  *[][]any `json:"values,omitempty"`
	Digest  string   `json:"digest,omitempty"`
}

type reply struct {
	Sets     []*resultSet  `json:"sets"`
	Errors   []serverError `json:"errors"`
	Affected *int64        `json:"affected,omitempty"`
}

func newReply() *reply { return &reply{Sets: []*resultSet{}, Errors: []serverError{}} }

func lackOf(err error) (lack unsupported, ok bool) {
	ok = errors.As(err, &lack)
	return
}

func described(err error) *serverError {
	var told mssql.Error
	if errors.As(err, &told) {
		return &serverError{int64(told.Number), int64(told.State), int64(told.Class), told.Message}
	}
	return &serverError{}
}

// broken tells an error behind which the connection is of no use.
func broken(err error) bool {
	var network net.Error
	var stream mssql.StreamError
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, driver.ErrBadConn, sql.ErrConnDone, context.DeadlineExceeded} {
		if errors.Is(err, end) {
			return true
		}
	}
	return errors.As(err, &network) || errors.As(err, &stream)
}

// fail notes the server's errors, and one of the driver's own without its words; that of a broken connection is handed
// back and ends the scenario.
func (r *reply) fail(err error) error {
	var told mssql.Error
	switch {
	case errors.As(err, &told):
	case broken(err):
		return err
	default:
		r.Errors = append(r.Errors, serverError{})
		return nil
	}
	all := told.All
	if len(all) == 0 {
		all = []mssql.Error{told}
	}
	for _, one := range all {
		r.Errors = append(r.Errors, *described(one))
	}
	return nil
}

// readAll reads every result set to the end and closes the rows.
func (r *reply) readAll(rows *sql.Rows) error {
	defer rows.Close()
	for {
		// A statement without a result set has one without columns here.
		if columns, err := rows.Columns(); err == nil && len(columns) > 0 {
			if err := r.readSet(rows); err != nil {
				return err
			}
		}
		if !rows.NextResultSet() {
			break
		}
	}
	if err := rows.Err(); err != nil {
		return r.fail(err)
	}
	return nil
}

// readSet reads the rows of the set at hand.
func (r *reply) readSet(rows *sql.Rows) error {
	types, err := rows.ColumnTypes()
	if err != nil {
		return err
	}
	values := [][]any{}
	set := &resultSet{Columns: make([]string, len(types)), Values: &values}
	for at, column := range types {
		set.Columns[at] = column.Name()
	}
	if len(types) == 0 {
		for rows.Next() {
			return errors.New("a row without columns")
		}
		return nil
	}
	r.Sets = append(r.Sets, set)
	cells, into := make([]any, len(types)), make([]any, len(types))
	for at := range cells {
		into[at] = &cells[at]
	}
	digest := sha256.New()
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return fmt.Errorf("row %d: %w", set.Rows+1, err)
		}
		row := make([]any, len(cells))
		for at, cell := range cells {
			row[at] = written(cell, types[at].DatabaseTypeName())
		}
		line, err := json.Marshal(row)
		if err != nil {
			return err
		}
		digest.Write(line)
		if set.Rows++; set.Rows <= valuesMax {
			values = append(values, row)
		}
	}
	if set.Rows > valuesMax {
		set.Values, set.Digest = nil, hex.EncodeToString(digest.Sum(nil))
	}
	if err := rows.Err(); errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}
