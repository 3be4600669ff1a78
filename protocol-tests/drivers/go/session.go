package main

// One connection of go-mssqldb, and the steps on it.

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/golang-sql/sqlexp"
	mssql "github.com/microsoft/go-mssqldb"
)

type step struct {
	Do      string      `json:"do"`
	SQL     string      `json:"sql"`
	Params  []parameter `json:"params"`
	Types   []string    `json:"types"`
	Runs    [][]any     `json:"runs"`
	After   int         `json:"after"`
	Table   string      `json:"table"`
	Columns []string    `json:"columns"`
	Rows    int         `json:"rows"`
	Type    string      `json:"type"`
	What    string      `json:"what"`
}

type session struct {
	tag   string
	db    *sql.DB
	conn  *sql.Conn
	tx    *sql.Tx
	out   *json.Encoder
	lines *bufio.Reader
}

// The driver's words for the modes. Trust means that the certificate is taken as it is.
func connectionString(to settings) (string, error) {
	options := url.Values{"database": {to.database}, "dial timeout": {"60"}, "app name": {"conform"}}
	options.Set("TrustServerCertificate", "true")
	switch to.encryption {
	case "none":
		options.Set("encrypt", "disable")
	case "login-only":
		options.Set("encrypt", "false")
	case "on":
		options.Set("encrypt", "true")
	case "required", "strict":
		options.Set("encrypt", map[string]string{"required": "true", "strict": "strict"}[to.encryption])
		options.Set("TrustServerCertificate", "false")
		options.Set("certificate", to.ca)
	default:
		return "", fmt.Errorf("no such encryption: %s", to.encryption)
	}
	where := url.URL{Scheme: "sqlserver", Host: to.host + ":" + to.port, RawQuery: options.Encode()}
	where.User = url.UserPassword(to.user, to.password)
	return where.String(), nil
}

func open(to settings) (*session, error) {
	where, err := connectionString(to)
	if err != nil {
		return nil, err
	}
	connector, err := mssql.NewConnector(where)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector)
	// One connection, taken out of the pool for the whole scenario: nothing is reset, nothing is tried again.
	db.SetMaxOpenConns(1)
	ctx, cancel := withDeadline()
	defer cancel()
	conn, err := db.Conn(ctx)
	if err != nil {
		db.Close()
		return nil, err
	}
	return &session{tag: to.tag, db: db, conn: conn}, nil
}

func (s *session) close() {
	if s.tx != nil {
		s.tx.Rollback()
	}
	s.conn.Close()
	s.db.Close()
}

func (s *session) tagged(text string) string { return strings.ReplaceAll(text, "{tag}", s.tag) }

// do runs one step. Its error ends the scenario; what the server answered stands in the reply.
func (s *session) do(what *step) (any, error) {
	what.SQL, what.Table, what.Type = s.tagged(what.SQL), s.tagged(what.Table), s.tagged(what.Type)
	switch what.Do {
	case "batch":
		return s.batch(what.SQL)
	case "query":
		return s.query(what.SQL, what.Params)
	case "prepared":
		return s.prepared(what)
	case "begin", "commit", "rollback":
		return s.transaction(what.Do)
	case "cancel":
		return s.cancel(what)
	case "bulk":
		return s.bulk(what)
	case "tvp":
		return s.tvp(what)
	case "await":
		return s.await(what.What)
	case "mars":
		return nil, unsupported("the driver has no MARS")
	case "cursor":
		return nil, unsupported("the driver has no server cursors")
	}
	return nil, fmt.Errorf("no such step: %s", what.Do)
}

// querier is the connection, or the transaction that is open on it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

func (s *session) through() querier {
	if s.tx != nil {
		return s.tx
	}
	return s.conn
}

// batch reads by the driver's message queue, the only way in which it tells every error and every count.
func (s *session) batch(text string) (any, error) {
	ctx, cancel := withDeadline()
	defer cancel()
	reply := newReply()
	told := &sqlexp.ReturnMessage{}
	rows, err := s.through().QueryContext(ctx, text, told)
	if err != nil {
		return reply, reply.fail(err)
	}
	defer rows.Close()
	for more := true; more; {
		switch message := told.Message(ctx).(type) {
		case sqlexp.MsgNext:
			if err := reply.readSet(rows); err != nil {
				return reply, err
			}
		case sqlexp.MsgNextResultSet:
			more = rows.NextResultSet()
		case sqlexp.MsgError:
			if err := reply.fail(message.Error); err != nil {
				return reply, err
			}
		case sqlexp.MsgRowsAffected:
			count := message.Count
			reply.Affected = &count
		}
	}
	// What the queue has told is told again here.
	if err := rows.Err(); err != nil && len(reply.Errors) == 0 {
		return reply, reply.fail(err)
	}
	return reply, nil
}

// marked puts the driver's marks in the places of {1}, {2}.
func marked(text string, count int) string {
	for at := 1; at <= count; at++ {
		text = strings.ReplaceAll(text, fmt.Sprintf("{%d}", at), fmt.Sprintf("@p%d", at))
	}
	return text
}

func (s *session) query(text string, parameters []parameter) (any, error) {
	values, err := valuesOf(parameters)
	if err != nil {
		return nil, err
	}
	return s.asked(marked(text, len(values)), values)
}

// asked reads all result sets in the way of database/sql.
func (s *session) asked(text string, values []any) (*reply, error) {
	ctx, cancel := withDeadline()
	defer cancel()
	reply := newReply()
	rows, err := s.through().QueryContext(ctx, text, values...)
	if err != nil {
		return reply, reply.fail(err)
	}
	return reply, reply.readAll(rows)
}

// The driver prepares by itself and sends sp_executesql each time.
func (s *session) prepared(what *step) (any, error) {
	ctx, cancel := withDeadline()
	defer cancel()
	statement, err := s.through().PrepareContext(ctx, marked(what.SQL, len(what.Types)))
	if err != nil {
		return nil, err
	}
	defer statement.Close()
	runs := []*reply{}
	for _, run := range what.Runs {
		parameters := make([]parameter, len(run))
		for at, value := range run {
			parameters[at] = parameter{Type: what.Types[at], Value: value}
		}
		values, err := valuesOf(parameters)
		if err != nil {
			return nil, err
		}
		reply := newReply()
		rows, err := statement.QueryContext(ctx, values...)
		if err != nil {
			err = reply.fail(err)
		} else {
			err = reply.readAll(rows)
		}
		if err != nil {
			return nil, err
		}
		runs = append(runs, reply)
	}
	return map[string]any{"runs": runs}, nil
}

func (s *session) transaction(what string) (any, error) {
	reply := newReply()
	var err error
	switch {
	case what == "begin":
		// The context of a transaction rolls it back at its end, so it has no deadline.
		s.tx, err = s.conn.BeginTx(context.Background(), nil)
	case s.tx == nil:
		return nil, errors.New("no transaction is open")
	case what == "commit":
		err = s.tx.Commit()
	default:
		err = s.tx.Rollback()
	}
	if what != "begin" {
		s.tx = nil
	}
	if err != nil {
		err = reply.fail(err)
	}
	return map[string]any{"errors": reply.Errors}, err
}

// The driver cancels by the statement's context: it sends an ATTENTION and reads to its acknowledgement.
func (s *session) cancel(what *step) (any, error) {
	deadline, end := withDeadline()
	defer end()
	ctx, cancel := context.WithCancel(deadline)
	defer cancel()
	rows, err := s.through().QueryContext(ctx, what.SQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for seen := 0; rows.Next(); {
		if seen++; seen == what.After {
			cancel()
		}
	}
	err = rows.Err()
	if err != nil && !errors.Is(err, context.Canceled) {
		return nil, err
	}
	return map[string]any{"cancelled": err != nil}, nil
}

func (s *session) await(what string) (any, error) {
	if err := s.out.Encode(map[string]string{"await": what}); err != nil {
		return nil, err
	}
	if _, err := s.lines.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("nothing to read while it awaits %s: %w", what, err)
	}
	return struct{}{}, nil
}
