// Command ferretdb speaks MongoDB's protocol for the tests, on the private PostgreSQL of scripts/stack.
//
// FerretDB's own command does not build from the module proxy (a generated version.txt is not in the module), so this
// embeds its package. An embedded FerretDB reports no telemetry and keeps no state directory.
package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

// The environment and not flags: the URL carries a password, and flags are seen by every user of the machine.
func main() {
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	slog.SetDefault(logger)
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:      ferretdb.ListenerConfig{TCP: os.Getenv("FERRETDB_LISTEN")},
		Logger:        logger,
		Handler:       "postgresql",
		PostgreSQLURL: os.Getenv("FERRETDB_POSTGRESQL_URL"),
	})
	if err != nil {
		logger.Error("could not start", "error", err)
		os.Exit(1)
	}
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := server.Run(stopped); err != nil {
		logger.Error("ended", "error", err)
		os.Exit(1)
	}
}
