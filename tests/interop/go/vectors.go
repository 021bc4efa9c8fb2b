package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// A vector is the case.json of one directory of tests/vectors; SPEC.md says what its members mean.
type vector struct {
	Kind string `json:"kind"`

	PublicKey string `json:"publicKey"`
	Message   string `json:"message"`
	Signature string `json:"signature"`

	VKey string `json:"vkey"`

	File       string          `json:"file"`
	Origin     string          `json:"origin"`
	Keys       []string        `json:"keys"`
	Signatures int             `json:"signatures"`
	Path       string          `json:"path"`
	Bundle     string          `json:"bundle"`
	Tile       string          `json:"tile"`
	Width      int             `json:"width"`
	Index      int64           `json:"index"`
	Size       int64           `json:"size"`
	LeafHash   string          `json:"leafHash"`
	RootHash   string          `json:"rootHash"`
	Hashes     []string        `json:"hashes"`
	OldSize    int64           `json:"oldSize"`
	NewSize    int64           `json:"newSize"`
	OldRoot    string          `json:"oldRootHash"`
	NewRoot    string          `json:"newRootHash"`
	Directory  string          `json:"directory"`
	Trust      trust           `json:"trust"`
	Pinned     string          `json:"pinned"`
	Expected   json.RawMessage `json:"expected"` // never read: the program does not know what it should find
}

type trust struct {
	Origin  string   `json:"origin"`
	Root    string   `json:"root"`
	Log     string   `json:"log"`
	Receipt []string `json:"receipt"`
}

// A judgement is the program's own verdict on one case; Why tells a person what was wrong.
type judgement struct {
	Case    string `json:"case"`
	Kind    string `json:"kind"`
	Verdict string `json:"verdict"` // accept, reject, or notJudged
	Why     string `json:"why,omitempty"`
}

var errNotJudged = errors.New("this program cannot judge it")

// judgeVectors judges every case below directory, in the order of their names.
func judgeVectors(directory string) error {
	manifests, err := filepath.Glob(filepath.Join(directory, "*", "case.json"))
	if err != nil {
		return err
	}
	encoder := json.NewEncoder(os.Stdout)
	for _, manifest := range manifests {
		data, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		var asked vector
		if err := json.Unmarshal(data, &asked); err != nil {
			return fmt.Errorf("%s: %w", manifest, err)
		}
		place := filepath.Dir(manifest)
		found := judgement{Case: filepath.Base(place), Kind: asked.Kind, Verdict: "accept"}
		if err := judge(asked, place); errors.Is(err, errNotJudged) {
			found.Verdict = "notJudged"
		} else if err != nil {
			found.Verdict, found.Why = "reject", err.Error()
		}
		if err := encoder.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

func judge(asked vector, place string) error {
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(place, name))
		if err != nil {
			panic(err) // the corpus lacks a file that it names
		}
		return data
	}
	switch asked.Kind {
	case "signature":
		key, message, signature := fromHex(asked.PublicKey), fromHex(asked.Message), fromHex(asked.Signature)
		return checkSignature(key, message, signature)
	case "vkey":
		_, err := parseVKey(asked.VKey)
		return err
	case "json":
		_, err := parseCanonical(read(asked.File))
		return err
	case "envelope":
		return judgeEnvelope(read(asked.File), asked.Keys, asked.Signatures)
	case "checkpoint":
		_, err := strictCheckpoint(read(asked.File), asked.Origin, asked.Keys)
		return err
	case "tilePath":
		return checkTilePath(asked.Path)
	case "bundle":
		return judgeBundle(read(asked.Bundle), read(asked.Tile), asked.Width)
	case "inclusion":
		hashes, err := hashesOf(append(asked.Hashes, asked.LeafHash, asked.RootHash))
		if err != nil {
			return err
		}
		count := len(asked.Hashes)
		if asked.Index < 0 || asked.Index >= asked.Size {
			return errors.New("the index is not below the size")
		}
		return tlog.CheckRecord(hashes[:count], asked.Size, hashes[count+1], asked.Index, hashes[count])
	case "consistency":
		return judgeConsistency(asked)
	case "proof":
		return judgeProof(read(asked.File), asked.Trust)
	case "ledger":
		var pinned []byte
		if asked.Pinned != "" {
			pinned = read(asked.Pinned)
		}
		return judgeLedger(filepath.Join(place, asked.Directory), asked.Trust, pinned)
	}
	return errNotJudged
}

func judgeEnvelope(data []byte, keys []string, count int) error {
	opened, err := parseEnvelope(data)
	if err != nil {
		return err
	}
	var known [][]byte
	for _, key := range keys {
		known = append(known, fromHex(key))
	}
	_, err = opened.signers(known, count)
	return err
}

func judgeBundle(data, tile []byte, width int) error {
	entries, err := splitBundle(data)
	if err != nil {
		return err
	}
	if len(entries) != width {
		return fmt.Errorf("%d entries, expected %d", len(entries), width)
	}
	var hashes []byte
	for _, entry := range entries {
		hash := tlog.RecordHash(entry)
		hashes = append(hashes, hash[:]...)
	}
	if !bytes.Equal(hashes, tile) {
		return errors.New("the tile is of other entries")
	}
	return nil
}

func splitBundle(data []byte) ([][]byte, error) {
	var entries [][]byte
	for len(data) > 0 {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("the bundle ends inside an entry")
		}
		end := 2 + int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:end])
		data = data[end:]
	}
	return entries, nil
}

func judgeConsistency(asked vector) error {
	hashes, err := hashesOf(append(asked.Hashes, asked.OldRoot, asked.NewRoot))
	if err != nil {
		return err
	}
	count := len(asked.Hashes)
	if asked.OldSize < 1 || asked.OldSize > asked.NewSize {
		return errors.New("the tree is smaller than it was")
	}
	return tlog.CheckTree(hashes[:count], asked.NewSize, hashes[count+1], asked.OldSize, hashes[count])
}

func judgeProof(data []byte, trusted trust) error {
	if trusted.Log == "" {
		return errNotJudged
	}
	proved, err := openProof(data, func(checkpoint []byte) (tlog.Tree, error) {
		return strictCheckpoint(checkpoint, trusted.Origin, []string{trusted.Log})
	})
	if err != nil {
		return err
	}
	opened, err := parseEnvelope(proved.entry)
	if err != nil {
		return err
	}
	made, err := parseStatement(opened.payload)
	if err != nil {
		return err
	}
	at := made.Predicate.Ledger
	if at.Index != proved.index || at.Origin != trusted.Origin {
		return errors.New("the receipt was signed for another place")
	}
	// The sibling of a right leaf is the leaf before it.
	if proved.index%2 == 1 && at.Previous != fmt.Sprintf("%x", proved.siblings[0][:]) {
		return errors.New("the receipt was signed behind another entry")
	}
	keys, count := trusted.Receipt, 1
	if strings.HasPrefix(made.PredicateType, "urn:govrun:key") {
		keys = []string{trusted.Root}
	}
	if len(keys) == 0 {
		return nil
	}
	known, err := keysOf(keys)
	if err != nil {
		return err
	}
	_, err = opened.signers(known, count)
	return err
}

// judgeLedger checks tree, checkpoint, pin, envelopes, places, and which keys signed; no schema and no rule between
// intents and outcomes.
func judgeLedger(directory string, trusted trust, pinned []byte) error {
	if trusted.Log == "" {
		return errNotJudged
	}
	data, err := os.ReadFile(filepath.Join(directory, "checkpoint"))
	if err != nil {
		return err
	}
	if _, err := strictCheckpoint(data, trusted.Origin, []string{trusted.Log}); err != nil {
		return err
	}
	older := ""
	if pinned != nil {
		kept, err := strictCheckpoint(pinned, trusted.Origin, []string{trusted.Log})
		if err != nil {
			return err
		}
		if kept.N == 0 {
			return errors.New("a kept checkpoint over nothing shows nothing")
		}
		older = filepath.Join(filepath.Dir(directory), "pinned")
	}
	found, err := check(trusted.Log, directory, older)
	if err != nil {
		return err
	}
	entries, err := readBundle(directory, 0, int(found.Size))
	if err != nil {
		return err
	}
	return checkReceipts(entries, trusted)
}

// checkReceipts checks the chain, and that the keys that count at each place signed.
func checkReceipts(entries [][]byte, trusted trust) error {
	roots, err := keysOf([]string{trusted.Root})
	if err != nil {
		return err
	}
	receipts, err := keysOf(trusted.Receipt)
	if err != nil {
		return err
	}
	revoked := map[string]bool{}
	previous := strings.Repeat("0", 64)
	for index, entry := range entries {
		opened, err := parseEnvelope(entry)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		made, err := parseStatement(opened.payload)
		if err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
		if index == 0 && len(receipts) == 0 {
			receipts = [][]byte{fromHex(made.Predicate.Keys.Receipt.PublicKey)}
		}
		if index == 0 && len(roots) == 0 {
			roots = [][]byte{fromHex(made.Predicate.Keys.Root.PublicKey)}
		}
		at := made.Predicate.Ledger
		if at.Origin != trusted.Origin || at.Index != int64(index) || at.Previous != previous {
			return fmt.Errorf("entry %d was signed for another place", index)
		}
		previous = fmt.Sprintf("%x", sha256.Sum256(append([]byte{0}, entry...)))
		key := fromHex(made.Predicate.Key.PublicKey)
		switch made.PredicateType {
		case "urn:govrun:keyAdded:v1":
			signers, err := opened.signers(append([][]byte{key}, roots...), 2)
			if err != nil || !bytes.Equal(signers[0], key) {
				return fmt.Errorf("entry %d: a key change that does not count: %v", index, err)
			}
			if made.Predicate.Role == "root" {
				roots = append(roots, key)
			} else if !revoked[string(key)] {
				receipts = append(receipts, key)
			}
		case "urn:govrun:keyRevoked:v1":
			if _, err := opened.signers(roots, 1); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
			if from := made.Predicate.SuspectFromIndex; from != nil && *from > int64(index) {
				return fmt.Errorf("entry %d: suspect from a later entry", index)
			}
			if made.Predicate.Role == "root" {
				if roots = without(roots, key); len(roots) == 0 {
					return fmt.Errorf("entry %d: the last root key is revoked", index)
				}
			} else {
				revoked[string(key)] = true
				receipts = without(receipts, key)
			}
		default:
			if _, err := opened.signers(receipts, 1); err != nil {
				return fmt.Errorf("entry %d: %w", index, err)
			}
		}
	}
	return nil
}

func without(keys [][]byte, gone []byte) [][]byte {
	var left [][]byte
	for _, key := range keys {
		if !bytes.Equal(key, gone) {
			left = append(left, key)
		}
	}
	return left
}

// keysOf reads the public keys of vkeys; an empty one stands for none.
func keysOf(vkeys []string) ([][]byte, error) {
	var keys [][]byte
	for _, vkey := range vkeys {
		if vkey == "" {
			continue
		}
		key, err := parseVKey(vkey)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// strictCheckpoint opens a checkpoint with sumdb/note and adds what SPEC demands beyond it.
func strictCheckpoint(data []byte, origin string, vkeys []string) (tlog.Tree, error) {
	var verifiers []note.Verifier
	for _, vkey := range vkeys {
		verifier, err := note.NewVerifier(vkey)
		if err != nil {
			return tlog.Tree{}, err
		}
		verifiers = append(verifiers, verifier)
	}
	opened, err := note.Open(data, note.VerifierList(verifiers...))
	if err != nil {
		return tlog.Tree{}, err
	}
	if err := checkSignatureLines(data[len(opened.Text)+1:], verifiers); err != nil {
		return tlog.Tree{}, err
	}
	signed := false
	for _, signature := range opened.Sigs {
		signed = signed || signature.Name == origin
	}
	if !signed {
		return tlog.Tree{}, errors.New("the log's own key did not sign")
	}
	return parseHead(opened.Text, origin)
}
