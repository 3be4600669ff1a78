package main

// Values as the replies write them, and parameters and rows as the scenarios give them.

import (
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/golang-sql/civil"
	mssql "github.com/microsoft/go-mssqldb"
	"github.com/shopspring/decimal"
)

// Longest text or binary that is written out, in bytes of what is written.
const writtenMax = 300

// written is a cell by the driver's own type; column is the driver's name for the column's type.
func written(cell any, column string) any {
	switch value := cell.(type) {
	case nil:
		return nil
	case bool:
		return value
	case int64:
		return "i:" + strconv.FormatInt(value, 10)
	case float64:
		return fmt.Sprintf("f:%016x", math.Float64bits(value))
	case string:
		return long("s", value, []byte(value))
	case time.Time:
		return moment(value, column)
	case []byte:
		switch column {
		case "DECIMAL", "MONEY", "SMALLMONEY":
			return "n:" + plain(string(value))
		case "UNIQUEIDENTIFIER":
			var guid mssql.UniqueIdentifier
			if err := guid.Scan(value); err == nil {
				return "g:" + strings.ToLower(guid.String())
			}
		}
		return long("b", hex.EncodeToString(value), value)
	}
	return fmt.Sprintf("?:%T", cell)
}

func long(letter, shown string, raw []byte) string {
	if len(shown) > writtenMax {
		return fmt.Sprintf("%s#%d:%x", letter, len(raw), sha256.Sum256(raw))
	}
	return letter + ":" + shown
}

// plain is a decimal without zeros at the end of its fraction.
func plain(number string) string {
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number
}

func moment(value time.Time, column string) string {
	switch column {
	case "DATE":
		return "d:" + value.Format("2006-01-02")
	case "TIME":
		return "t:" + value.Format("15:04:05.9999999")
	case "DATETIMEOFFSET":
		return "o:" + value.Format("2006-01-02T15:04:05.9999999-07:00")
	}
	return "m:" + value.Format("2006-01-02T15:04:05.9999999")
}

type parameter struct {
	Type  string `json:"type"`
	Value any    `json:"value"`
}

func valuesOf(parameters []parameter) ([]any, error) {
	values := make([]any, len(parameters))
	for at, given := range parameters {
		value, err := given.of()
		if err != nil {
			return nil, fmt.Errorf("parameter %d: %w", at+1, err)
		}
		values[at] = value
	}
	return values, nil
}

// of is the Go value that the driver sends as this type.
func (p parameter) of() (any, error) {
	if p.Value == nil {
		return p.null()
	}
	text := fmt.Sprint(p.Value)
	switch p.Type {
	case "int":
		value, ok := p.Value.(float64)
		if !ok {
			return nil, fmt.Errorf("no int: %v", p.Value)
		}
		return int32(value), nil
	case "bigint":
		return strconv.ParseInt(text, 10, 64)
	case "bit", "float", "nvarchar":
		return p.Value, nil
	case "varbinary":
		return hex.DecodeString(text)
	case "decimal":
		return decimal.NewFromString(text)
	case "datetime2":
		return civil.ParseDateTime(text)
	case "date":
		return civil.ParseDate(text)
	case "uniqueidentifier":
		var guid mssql.UniqueIdentifier
		err := guid.Scan(text)
		return guid, err
	}
	return nil, fmt.Errorf("no such type: %s", p.Type)
}

func (p parameter) null() (any, error) {
	switch p.Type {
	case "int":
		return sql.NullInt32{}, nil
	case "bigint":
		return sql.NullInt64{}, nil
	case "bit":
		return sql.NullBool{}, nil
	case "float":
		return sql.NullFloat64{}, nil
	case "nvarchar":
		return sql.NullString{}, nil
	case "varbinary":
		return []byte(nil), nil
	case "decimal":
		return decimal.NullDecimal{}, nil
	case "datetime2":
		return mssql.NullDateTime{}, nil
	case "date":
		return mssql.NullDate{}, nil
	case "uniqueidentifier":
		return mssql.NullUniqueIdentifier{}, nil
	}
	return nil, fmt.Errorf("no such type: %s", p.Type)
}

// cellOf is row at (from 1) of a column that bulk and tvp fill, nil for NULL.
func cellOf(column string, at int) (any, error) {
	switch column {
	case "id":
		return int32(at), nil
	case "name":
		return fmt.Sprintf("name-%d", at), nil
	case "amount":
		return decimal.New(int64(at)*100+25, -2), nil
	case "note":
		if at%3 == 0 {
			return nil, nil
		}
		return fmt.Sprintf("ä%d", at), nil
	case "data":
		if at%5 == 0 {
			return nil, nil
		}
		return binary.BigEndian.AppendUint32(nil, uint32(at)), nil
	}
	return nil, fmt.Errorf("no such column: %s", column)
}

// bulk loads as SqlBulkCopy does: metadata by SET FMTONLY, INSERT BULK, one message of rows.
func (s *session) bulk(what *step) (any, error) {
	ctx, cancel := withDeadline()
	defer cancel()
	reply := newReply()
	var count int64
	err := s.conn.Raw(func(raw any) error {
		load := raw.(*mssql.Conn).CreateBulkContext(ctx, what.Table, what.Columns)
		for at := 1; at <= what.Rows; at++ {
			row := make([]any, len(what.Columns))
			for place, column := range what.Columns {
				cell, err := cellOf(column, at)
				if err != nil {
					return err
				}
				if amount, ok := cell.(decimal.Decimal); ok {
					cell = amount.String()
				}
				row[place] = cell
			}
			if err := load.AddRow(row); err != nil {
				return err
			}
		}
		var err error
		count, err = load.Done()
		return err
	})
	if err != nil {
		return reply, reply.fail(err)
	}
	return map[string]any{"errors": reply.Errors, "affected": count}, nil
}

// Go's types of a table parameter's columns; the driver reads a struct's fields in order.
var fieldTypes = map[string]reflect.Type{
	"id":     reflect.TypeFor[int32](),
	"name":   reflect.TypeFor[string](),
	"amount": reflect.TypeFor[decimal.Decimal](),
	"note":   reflect.TypeFor[*string](),
	"data":   reflect.TypeFor[[]byte](),
}

func (s *session) tvp(what *step) (any, error) {
	fields := make([]reflect.StructField, len(what.Columns))
	for at, column := range what.Columns {
		kind, known := fieldTypes[column]
		if !known {
			return nil, fmt.Errorf("no such column: %s", column)
		}
		fields[at] = reflect.StructField{Name: strings.ToUpper(column[:1]) + column[1:], Type: kind}
	}
	rows := reflect.MakeSlice(reflect.SliceOf(reflect.StructOf(fields)), what.Rows, what.Rows)
	for at := range what.Rows {
		for place, column := range what.Columns {
			cell, err := cellOf(column, at+1)
			if err != nil {
				return nil, err
			}
			field := rows.Index(at).Field(place)
			if text, ok := cell.(string); ok && field.Kind() == reflect.Pointer {
				field.Set(reflect.ValueOf(&text))
			} else if cell != nil {
				field.Set(reflect.ValueOf(cell))
			}
		}
	}
	table := mssql.TVP{TypeName: what.Type, Value: rows.Interface()}
	return s.asked(marked(what.SQL, 1), []any{table})
}
