// Interop checks a published govrun ledger with the Go checksum database's own packages.
//
//	interop [-consistency OLD_NOTE] VKEY DIRECTORY
//	interop -proof FILE VKEY
//	interop -vectors DIRECTORY
//
// DIRECTORY holds checkpoint, tile/<L>/<N>[.p/<W>] and tile/entries/<N>[.p/<W>] (C2SP tlog-tiles). The program opens
// the checkpoint with sumdb/note, reads every tile through sumdb/tlog, which authenticates it against the signed root,
// compares the leaf hash of every entry with the tree, and proves every entry included. With -consistency it also
// proves that the tree extends the one in OLD_NOTE, a file. It trusts VKEY and nothing in DIRECTORY.
//
// With -proof it reads the proof of one entry (C2SP tlog-proof, the entry's bytes in its extra line), opens the
// checkpoint in it with sumdb/note, and checks the inclusion proof with sumdb/tlog. No ledger is needed.
//
// With -vectors it judges the cases of tests/vectors, and writes a line of JSON for each.
//
// On success: one line of JSON and exit code 0. On anything else: a line on stderr and exit code 1.
package main

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// A report is what the program found to be true.
type report struct {
	Origin         string `json:"origin"`
	Size           int64  `json:"size"`
	Root           string `json:"root"`
	Entries        int64  `json:"entries"`
	ConsistentWith *int64 `json:"consistentWith,omitempty"`
	Index          *int64 `json:"index,omitempty"`
	LeafHash       string `json:"leafHash,omitempty"`
}

func main() {
	older := flag.String("consistency", "", "file with an older checkpoint of the same log")
	proof := flag.String("proof", "", "file with the proof of one entry")
	vectors := flag.String("vectors", "", "directory with cases to judge")
	flag.Parse()
	if *vectors != "" && flag.NArg() == 0 {
		if err := judgeVectors(*vectors); err != nil {
			fmt.Fprintln(os.Stderr, "interop:", err)
			os.Exit(1)
		}
		return
	}
	var found *report
	var err error
	switch {
	case *proof != "" && *older == "" && flag.NArg() == 1:
		found, err = checkProof(flag.Arg(0), *proof)
	case *proof == "" && flag.NArg() == 2:
		found, err = check(flag.Arg(0), flag.Arg(1), *older)
	default:
		fmt.Fprintln(os.Stderr, "usage: interop [-consistency OLD_NOTE] VKEY DIRECTORY\n       interop -proof FILE VKEY\n       interop -vectors DIRECTORY")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

func check(vkey, directory, older string) (*report, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	tree, err := openCheckpoint(filepath.Join(directory, "checkpoint"), verifier)
	if err != nil {
		return nil, err
	}
	tiles := &tileFiles{directory: directory, read: map[tlog.Tile][]byte{}}
	hashes := &knownHashes{reader: tlog.TileHashReader(tree, tiles), known: map[int64]tlog.Hash{}}

	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return nil, fmt.Errorf("tree hash: %w", err)
	}
	if root != tree.Hash {
		return nil, fmt.Errorf("root %v, expected %v", root, tree.Hash)
	}
	if err := checkEntries(directory, tree, hashes); err != nil {
		return nil, err
	}
	found := &report{Origin: verifier.Name(), Size: tree.N, Root: tree.Hash.String(), Entries: tree.N}
	if older != "" {
		size, err := checkConsistency(older, verifier, tree, hashes)
		if err != nil {
			return nil, err
		}
		found.ConsistentWith = &size
	}
	return found, nil
}

// openCheckpoint reads a signed checkpoint that verifier's key signed and whose origin is that key's name.
func openCheckpoint(path string, verifier note.Verifier) (tlog.Tree, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return tlog.Tree{}, err
	}
	return parseCheckpoint(data, verifier)
}

func parseCheckpoint(data []byte, verifier note.Verifier) (tlog.Tree, error) {
	opened, err := note.Open(data, note.VerifierList(verifier))
	if err != nil {
		return tlog.Tree{}, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, fmt.Errorf("checkpoint of %d lines, expected origin, size and root", len(lines)-1)
	}
	if lines[0] != verifier.Name() {
		return tlog.Tree{}, fmt.Errorf("origin %q, expected %q", lines[0], verifier.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("tree size %q", lines[1])
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, err
	}
	return tlog.Tree{N: size, Hash: root}, nil
}

// checkProof proves that the entry in the file path is in the log of vkey.
func checkProof(vkey, path string) (*report, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var tree tlog.Tree
	proved, err := openProof(data, func(checkpoint []byte) (tlog.Tree, error) {
		var err error
		tree, err = parseCheckpoint(checkpoint, verifier)
		return tree, err
	})
	if err != nil {
		return nil, err
	}
	return &report{
		Origin: verifier.Name(), Size: tree.N, Root: tree.Hash.String(), Entries: 1, Index: &proved.index,
		LeafHash: tlog.RecordHash(proved.entry).String(),
	}, nil
}

// A provedEntry is an entry that stands at index in a tree; siblings lead from it to the root.
type provedEntry struct {
	entry    []byte
	index    int64
	siblings tlog.RecordProof
}

// openProof reads a proof file and checks it under what open says of its checkpoint.
func openProof(data []byte, open func(checkpoint []byte) (tlog.Tree, error)) (*provedEntry, error) {
	head, checkpoint, found := strings.Cut(string(data), "\n\n")
	lines := strings.Split(head, "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return nil, errors.New("this is not a log proof")
	}
	encoded, isExtra := strings.CutPrefix(lines[1], "extra ")
	decimal, isIndex := strings.CutPrefix(lines[2], "index ")
	if !isExtra || !isIndex {
		return nil, errors.New("the proof lacks its entry or its index")
	}
	entry, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, err
	}
	index, err := strconv.ParseInt(decimal, 10, 64)
	if err != nil || index < 0 || strconv.FormatInt(index, 10) != decimal {
		return nil, fmt.Errorf("index %q", decimal)
	}
	var hashes tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return nil, err
		}
		hashes = append(hashes, hash)
	}
	tree, err := open([]byte(checkpoint))
	if err != nil {
		return nil, err
	}
	if index >= tree.N {
		return nil, fmt.Errorf("index %d in a tree of %d", index, tree.N)
	}
	if err := tlog.CheckRecord(hashes, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return nil, err
	}
	return &provedEntry{entry, index, hashes}, nil
}

// checkEntries compares every entry with the authenticated tree, then proves it included.
func checkEntries(directory string, tree tlog.Tree, hashes tlog.HashReader) error {
	for first := int64(0); first < tree.N; first += tileWidth {
		width := min(tileWidth, tree.N-first)
		entries, err := readBundle(directory, first/tileWidth, int(width))
		if err != nil {
			return err
		}
		// Everything the tree keeps for these entries, authenticated in one go.
		var indexes []int64
		for index := tlog.StoredHashCount(first); index < tlog.StoredHashCount(first+width); index++ {
			indexes = append(indexes, index)
		}
		if _, err := hashes.ReadHashes(indexes); err != nil {
			return fmt.Errorf("entries from %d on: %w", first, err)
		}
		for at, entry := range entries {
			index := first + int64(at)
			leaf := tlog.RecordHash(entry)
			stored, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			if stored[0] != leaf {
				return fmt.Errorf("entry %d has leaf hash %v, expected %v", index, leaf, stored[0])
			}
			proof, err := tlog.ProveRecord(tree.N, index, hashes)
			if err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			if err := tlog.CheckRecord(proof, tree.N, tree.Hash, index, leaf); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	return nil
}

// checkConsistency proves that tree extends the checkpoint in the file older, and returns the older size.
func checkConsistency(older string, verifier note.Verifier, tree tlog.Tree, hashes tlog.HashReader) (int64, error) {
	old, err := openCheckpoint(older, verifier)
	if err != nil {
		return 0, fmt.Errorf("older checkpoint: %w", err)
	}
	if old.N > tree.N {
		return 0, fmt.Errorf("tree size %d, expected at least %d", tree.N, old.N)
	}
	if old.N == 0 {
		// Every tree extends the empty one; tlog has no proof of that.
		return 0, nil
	}
	proof, err := tlog.ProveTree(tree.N, old.N, hashes)
	if err != nil {
		return 0, fmt.Errorf("consistency: %w", err)
	}
	if err := tlog.CheckTree(proof, tree.N, tree.Hash, old.N, old.Hash); err != nil {
		return 0, fmt.Errorf("consistency: %w", err)
	}
	return old.N, nil
}

// readBundle reads the exact entries of a bundle: each behind its length in two bytes.
func readBundle(directory string, number int64, width int) ([][]byte, error) {
	tile := tlog.Tile{H: tileHeight, L: -1, N: number, W: width}
	path := strings.Replace(tile.Path(), "tile/8/data/", "tile/entries/", 1)
	data, err := os.ReadFile(filepath.Join(directory, filepath.FromSlash(path)))
	if err != nil {
		return nil, err
	}
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("%s ends inside an entry", path)
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	if len(entries) != width {
		return nil, fmt.Errorf("%s has %d entries, expected %d", path, len(entries), width)
	}
	return entries, nil
}

// knownHashes keeps the hashes that its reader has authenticated, so that each is authenticated once.
type knownHashes struct {
	reader tlog.HashReader
	known  map[int64]tlog.Hash
}

func (k *knownHashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var missing []int64
	for _, index := range indexes {
		if _, ok := k.known[index]; !ok {
			missing = append(missing, index)
		}
	}
	if len(missing) > 0 {
		read, err := k.reader.ReadHashes(missing)
		if err != nil {
			return nil, err
		}
		for i, index := range missing {
			k.known[index] = read[i]
		}
	}
	hashes := make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		hashes[i] = k.known[index]
	}
	return hashes, nil
}

// tileFiles reads tiles from a published directory; tlog authenticates what it returns.
type tileFiles struct {
	directory string
	read      map[tlog.Tile][]byte
}

func (t *tileFiles) Height() int { return tileHeight }

func (t *tileFiles) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	contents := make([][]byte, len(tiles))
	for i, tile := range tiles {
		data, ok := t.read[tile]
		if !ok {
			// C2SP leaves the height out of the path: it is always 8.
			path := strings.Replace(tile.Path(), "tile/8/", "tile/", 1)
			var err error
			if data, err = os.ReadFile(filepath.Join(t.directory, filepath.FromSlash(path))); err != nil {
				return nil, err
			}
			if len(data) != tile.W*tlog.HashSize {
				return nil, errors.New(path + " has the wrong length")
			}
			t.read[tile] = data
		}
		contents[i] = data
	}
	return contents, nil
}

func (t *tileFiles) SaveTiles([]tlog.Tile, [][]byte) {}
