package main

import (
	"github.com/spf13/cobra"

	"github.com/podnotify/podnotify/internal/ask"
)

// addAddressFlag defines --address.
func addAddressFlag(c *cobra.Command, address *string) {
	c.Flags().StringVar(address, "address", "", "URL or HOST:PORT of podnotify (default $PODNOTIFY_ADDRESS, else "+ask.DefaultAddress+")")
}

// asker finds podnotify by the flag, PODNOTIFY_ADDRESS or the default.
func (a *app) asker(flag string) (*ask.Asker, error) {
	return ask.New(flag, a.getenv("PODNOTIFY_ADDRESS"))
}
