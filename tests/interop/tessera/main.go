// Tessera asks the packages of transparency-dev about what govrun wrote.
//
//	tessera -fsck VKEY DIRECTORY
//	tessera -merkle
//
// With -fsck it runs Tessera's fsck over a published ledger: every bundle is hashed again as RFC 6962 says, every tile
// derived again and compared, and the root compared with the signed checkpoint. It trusts VKEY alone.
//
// With -merkle it writes the published tree of github.com/transparency-dev/merkle and proofs in it, right and wrong
// ones, each with the verdict of that module: a line of JSON for each.
//
// On success: exit code 0. On anything else: a line on stderr and exit code 1.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"github.com/transparency-dev/tessera/fsck"
	"golang.org/x/mod/sumdb/note"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "-fsck":
		err = checkLedger(os.Args[2], os.Args[3])
	case len(os.Args) == 2 && os.Args[1] == "-merkle":
		err = writeVectors(json.NewEncoder(os.Stdout))
	default:
		fmt.Fprintln(os.Stderr, "usage: tessera -fsck VKEY DIRECTORY\n       tessera -merkle")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "tessera:", err)
		os.Exit(1)
	}
}

func checkLedger(vkey, directory string) error {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return err
	}
	root, err := filepath.Abs(directory)
	if err != nil {
		return err
	}
	return fsck.New(verifier.Name(), verifier, client.FileFetcher{Root: root}, hashBundle, fsck.Opts{N: 2}).
		Check(context.Background())
}

// hashBundle returns the RFC 6962 leaf hash of each entry of a bundle.
func hashBundle(data []byte) ([][]byte, error) {
	var bundle api.EntryBundle
	if err := bundle.UnmarshalText(data); err != nil {
		return nil, err
	}
	hashes := make([][]byte, len(bundle.Entries))
	for i, entry := range bundle.Entries {
		hashes[i] = rfc6962.DefaultHasher.HashLeaf(entry)
	}
	return hashes, nil
}
