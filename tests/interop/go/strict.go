package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// The formats of SPEC.md, each read in its one spelling.

const payloadType = "application/vnd.in-toto+json"

func fromHex(text string) []byte {
	data, err := hex.DecodeString(text)
	if err != nil {
		panic(err) // the corpus spells binary values in hex
	}
	return data
}

// unbase64 reads standard base64, padded, in its one spelling.
func unbase64(text string) ([]byte, error) {
	data, err := base64.StdEncoding.Strict().DecodeString(text)
	if err == nil && base64.StdEncoding.EncodeToString(data) != text {
		err = errors.New("base64 in another spelling")
	}
	return data, err
}

func hashesOf(texts []string) ([]tlog.Hash, error) {
	hashes := make([]tlog.Hash, len(texts))
	for i, text := range texts {
		data := fromHex(text)
		if len(data) != tlog.HashSize {
			return nil, fmt.Errorf("a hash of %d bytes", len(data))
		}
		copy(hashes[i][:], data)
	}
	return hashes, nil
}

var (
	field  = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	curveD = new(big.Int).Mod(
		new(big.Int).Mul(big.NewInt(-121665), new(big.Int).ModInverse(big.NewInt(121666), field)), field)
)

// checkKey refuses a public key whose y is not reduced, and one of small order. Only y is looked at: x is determined
// by it but for its sign, and y of twice a point needs x squared alone.
func checkKey(key []byte) error {
	if len(key) != ed25519.PublicKeySize {
		return fmt.Errorf("a key of %d bytes", len(key))
	}
	reversed := make([]byte, len(key))
	for i, b := range key {
		reversed[len(key)-1-i] = b
	}
	reversed[0] &= 0x7f
	y := new(big.Int).SetBytes(reversed)
	if y.Cmp(field) >= 0 {
		return errors.New("a key whose y is not reduced")
	}
	one := big.NewInt(1)
	for range 3 {
		yy := new(big.Int).Mul(y, y)
		below := new(big.Int).Add(new(big.Int).Mul(curveD, yy), one)
		if below.ModInverse(below.Mod(below, field), field) == nil {
			return errors.New("a key that is no point")
		}
		xx := new(big.Int).Mod(new(big.Int).Mul(new(big.Int).Sub(yy, one), below), field)
		product := new(big.Int).Mul(curveD, new(big.Int).Mul(xx, yy))
		divisor := new(big.Int).Mod(new(big.Int).Sub(one, product), field)
		if divisor.ModInverse(divisor, field) == nil {
			return errors.New("a key that is no point")
		}
		y = new(big.Int).Mod(new(big.Int).Mul(new(big.Int).Add(yy, xx), divisor), field)
	}
	if y.Cmp(one) == 0 {
		return errors.New("a key of small order")
	}
	return nil
}

func checkSignature(key, message, signature []byte) error {
	if err := checkKey(key); err != nil {
		return err
	}
	if len(signature) != ed25519.SignatureSize || !ed25519.Verify(key, message, signature) {
		return errors.New("the signature does not verify")
	}
	return nil
}

// parseVKey reads a key with sumdb/note and returns its 32 bytes.
func parseVKey(vkey string) ([]byte, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, err
	}
	parts := strings.SplitN(vkey, "+", 3)
	material, err := unbase64(parts[2])
	if err != nil {
		return nil, err
	}
	if fmt.Sprintf("%s+%08x+%s", verifier.Name(), verifier.KeyHash(), parts[2]) != vkey {
		return nil, errors.New("a key in another spelling")
	}
	return material[1:], checkKey(material[1:])
}

// An envelope is what a leaf's bytes say.
type envelope struct {
	payload    []byte
	signatures [][]byte
}

var keyID = regexp.MustCompile(`^[0-9a-f]{64}$`)

// parseEnvelope reads an envelope, writes it again, and demands the same bytes.
func parseEnvelope(data []byte) (*envelope, error) {
	if len(data) > 65_535 {
		return nil, errors.New("the envelope is too large")
	}
	var read struct {
		Payload     string `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   string `json:"sig"`
		} `json:"signatures"`
	}
	if err := json.Unmarshal(data, &read); err != nil {
		return nil, err
	}
	var parts []string
	opened := &envelope{}
	for _, one := range read.Signatures {
		signature, err := unbase64(one.Sig)
		if err != nil || len(signature) != ed25519.SignatureSize || !keyID.MatchString(one.KeyID) {
			return nil, errors.New("a malformed signature")
		}
		opened.signatures = append(opened.signatures, signature)
		parts = append(parts, fmt.Sprintf(`{"keyid":"%s","sig":"%s"}`, one.KeyID, one.Sig))
	}
	payload, err := unbase64(read.Payload)
	if err != nil {
		return nil, err
	}
	written := fmt.Sprintf(
		`{"payload":"%s","payloadType":"%s","signatures":[%s]}`, read.Payload, payloadType, strings.Join(parts, ","))
	if written != string(data) {
		return nil, errors.New("the envelope is in another spelling")
	}
	if count := len(parts); count < 1 || count > 2 || len(payload) > 32_768 {
		return nil, errors.New("too many or too few signatures, or too large a payload")
	}
	opened.payload = payload
	return opened, nil
}

// signers returns the keys that signed, in order, if there are so many signatures, each by another of the keys.
func (e *envelope) signers(keys [][]byte, count int) ([][]byte, error) {
	if len(e.signatures) != count {
		return nil, fmt.Errorf("%d signatures, expected %d", len(e.signatures), count)
	}
	message := fmt.Appendf(nil, "DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(e.payload), e.payload)
	var found [][]byte
	for _, signature := range e.signatures {
		var signer []byte
		for _, key := range keys {
			if checkSignature(key, message, signature) == nil {
				signer = key
			}
		}
		if signer == nil {
			return nil, errors.New("a signature by none of the keys")
		}
		for _, other := range found {
			if bytes.Equal(other, signer) {
				return nil, errors.New("one key signed twice")
			}
		}
		found = append(found, signer)
	}
	return found, nil
}

// A statement is what this program reads of a payload: where it stands, and the keys in it.
type statement struct {
	PredicateType string `json:"predicateType"`
	Predicate     struct {
		Ledger struct {
			Origin   string `json:"origin"`
			Index    int64  `json:"index"`
			Previous string `json:"previous"`
		} `json:"ledger"`
		Role             string `json:"role"`
		SuspectFromIndex *int64 `json:"suspectFromIndex"`
		Key              struct {
			PublicKey string `json:"publicKey"`
		} `json:"key"`
		Keys struct {
			Root    struct{ PublicKey string } `json:"root"`
			Receipt struct{ PublicKey string } `json:"receipt"`
		} `json:"keys"`
	} `json:"predicate"`
}

func parseStatement(payload []byte) (*statement, error) {
	if _, err := parseCanonical(payload); err != nil {
		return nil, err
	}
	var made statement
	if err := json.Unmarshal(payload, &made); err != nil {
		return nil, err
	}
	return &made, nil
}

// parseCanonical reads an object of the signed profile, writes it again, and demands the same bytes.
func parseCanonical(data []byte) (map[string]any, error) {
	if len(data) > 1<<20 {
		return nil, errors.New("the document is too large")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value map[string]any
	if err := decoder.Decode(&value); err != nil {
		return nil, err
	}
	var written bytes.Buffer
	if err := writeCanonical(&written, value); err != nil {
		return nil, err
	}
	if !bytes.Equal(written.Bytes(), data) {
		return nil, errors.New("the document is in another spelling")
	}
	return value, nil
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,15})$`)

func writeCanonical(out *bytes.Buffer, value any) error {
	switch value := value.(type) {
	case nil:
		out.WriteString("null")
	case bool:
		out.WriteString(strconv.FormatBool(value))
	case string:
		writeString(out, value)
	case json.Number:
		number, err := strconv.ParseInt(value.String(), 10, 64)
		if err != nil || !integer.MatchString(value.String()) || number >= 1<<53 || number <= -(1<<53) {
			return fmt.Errorf("number %s", value)
		}
		out.WriteString(value.String())
	case []any:
		for i, item := range value {
			out.WriteByte("[,"[min(i, 1)])
			if err := writeCanonical(out, item); err != nil {
				return err
			}
		}
		if len(value) == 0 {
			out.WriteByte('[')
		}
		out.WriteByte(']')
	case map[string]any:
		return writeObject(out, value)
	}
	return nil
}

func writeObject(out *bytes.Buffer, value map[string]any) error {
	names := make([]string, 0, len(value))
	for name := range value {
		if strings.IndexFunc(name, func(r rune) bool { return r > unicode.MaxASCII }) >= 0 {
			return fmt.Errorf("member name %q", name)
		}
		names = append(names, name)
	}
	sort.Strings(names)
	out.WriteByte('{')
	for i, name := range names {
		if i > 0 {
			out.WriteByte(',')
		}
		writeString(out, name)
		out.WriteByte(':')
		if err := writeCanonical(out, value[name]); err != nil {
			return err
		}
	}
	out.WriteByte('}')
	return nil
}

// writeString writes a string with the escapes of RFC 8785.
func writeString(out *bytes.Buffer, text string) {
	short := map[rune]string{'\b': `\b`, '\t': `\t`, '\n': `\n`, '\f': `\f`, '\r': `\r`, '"': `\"`, '\\': `\\`}
	out.WriteByte('"')
	for _, r := range text {
		if escaped, ok := short[r]; ok {
			out.WriteString(escaped)
		} else if r < 0x20 {
			fmt.Fprintf(out, `\u%04x`, r)
		} else {
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
}

// checkSignatureLines adds to note.Open what SPEC demands: canonical base64, at most 16 lines, and one line for each
// known key.
func checkSignatureLines(block []byte, verifiers []note.Verifier) error {
	lines := strings.Split(strings.TrimSuffix(string(block), "\n"), "\n")
	if len(lines) > 16 {
		return fmt.Errorf("%d signature lines", len(lines))
	}
	seen := map[string]bool{}
	for _, line := range lines {
		name, text, _ := strings.Cut(strings.TrimPrefix(line, "\u2014 "), " ")
		data, err := unbase64(text)
		if err != nil || len(data) < 5 || name == "" || strings.Contains(name, "+") {
			return errors.New("a malformed signature line")
		}
		for _, verifier := range verifiers {
			known := fmt.Sprintf("%s+%08x", verifier.Name(), verifier.KeyHash())
			if fmt.Sprintf("%s+%x", name, data[:4]) != known {
				continue
			}
			if seen[known] {
				return errors.New("one key signed twice")
			}
			seen[known] = true
		}
	}
	return nil
}

var originForm = regexp.MustCompile(`^[!-*,-~]{1,255}$`)

// parseHead reads the text of a checkpoint, extension lines included.
func parseHead(text, origin string) (tlog.Tree, error) {
	lines := strings.Split(text, "\n")
	if len(lines) < 4 || lines[len(lines)-1] != "" {
		return tlog.Tree{}, errors.New("too few lines")
	}
	if lines[0] != origin || !originForm.MatchString(origin) || strings.Contains(origin, "://") {
		return tlog.Tree{}, fmt.Errorf("origin %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("tree size %q", lines[1])
	}
	data, err := unbase64(lines[2])
	if err != nil || len(data) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("root hash %q", lines[2])
	}
	for _, line := range lines[3 : len(lines)-1] {
		if line == "" {
			return tlog.Tree{}, errors.New("an empty extension line")
		}
	}
	tree := tlog.Tree{N: size, Hash: tlog.Hash(data)}
	if empty, _ := tlog.TreeHash(0, nil); size == 0 && tree.Hash != empty {
		return tlog.Tree{}, errors.New("the empty tree has another root")
	}
	return tree, nil
}

// checkTilePath reads a path with sumdb/tlog, whose tiles have their height in it and call the entries data.
func checkTilePath(path string) error {
	rest, isTile := strings.CutPrefix(path, "tile/")
	entries, isBundle := strings.CutPrefix(rest, "entries/")
	if isBundle {
		rest = "data/" + entries
	} else if level, _, _ := strings.Cut(rest, "/"); level == "data" {
		isTile = false
	}
	tile, err := tlog.ParseTilePath("tile/8/" + rest)
	if !isTile || err != nil || tile.H != tileHeight || tile.L > 63 {
		return fmt.Errorf("path %q", path)
	}
	return nil
}
