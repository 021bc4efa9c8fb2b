package main

import (
	"encoding/json"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
)

// largest is the size of the greatest tree that proofs are made in; its first leaves are the published ones.
const largest = 20

// The members are those of the vectors that the module's own repository holds as files.
type inclusionVector struct {
	Index    uint64   `json:"leafIdx"`
	Size     uint64   `json:"treeSize"`
	Root     []byte   `json:"root"`
	LeafHash []byte   `json:"leafHash"`
	Proof    [][]byte `json:"proof"`
	Says     string   `json:"desc"`
	Refused  bool     `json:"wantErr"`
}

type consistencyVector struct {
	Size1   uint64   `json:"size1"`
	Size2   uint64   `json:"size2"`
	Root1   []byte   `json:"root1"`
	Root2   []byte   `json:"root2"`
	Proof   [][]byte `json:"proof"`
	Says    string   `json:"desc"`
	Refused bool     `json:"wantErr"`
}

// publishedTree is the tree whose hashes the module publishes.
type publishedTree struct {
	Leaves [][]byte `json:"leaves"`
	Roots  [][]byte `json:"roots"` // of the trees of 0 to 8 leaves
}

func writeVectors(out *json.Encoder) error {
	if err := out.Encode(publishedTree{testonly.LeafInputs(), testonly.RootHashes()}); err != nil {
		return err
	}
	tree := testonly.New(rfc6962.DefaultHasher)
	tree.AppendData(testonly.LeafInputs()...)
	for n := tree.Size(); n < largest; n++ {
		tree.AppendData([]byte{byte(n)})
	}
	for size := uint64(1); size <= largest; size++ {
		for index := uint64(0); index < size; index++ {
			path, err := tree.InclusionProof(index, size)
			if err != nil {
				return err
			}
			right := inclusionVector{index, size, tree.HashAt(size), tree.LeafHash(index), path, "right", false}
			for _, one := range inclusionVariants(right) {
				err := proof.VerifyInclusion(rfc6962.DefaultHasher, one.Index, one.Size, one.LeafHash, one.Proof, one.Root)
				one.Refused = err != nil
				if err := out.Encode(one); err != nil {
					return err
				}
			}
		}
		for old := uint64(1); old <= size; old++ {
			path, err := tree.ConsistencyProof(old, size)
			if err != nil {
				return err
			}
			right := consistencyVector{old, size, tree.HashAt(old), tree.HashAt(size), path, "right", false}
			for _, one := range consistencyVariants(right) {
				err := proof.VerifyConsistency(rfc6962.DefaultHasher, one.Size1, one.Size2, one.Proof, one.Root1, one.Root2)
				one.Refused = err != nil
				if err := out.Encode(one); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func inclusionVariants(right inclusionVector) []inclusionVector {
	found := []inclusionVector{right}
	add := func(says string, change func(one *inclusionVector)) {
		one := right
		one.Says = says
		change(&one)
		found = append(found, one)
	}
	add("index + 1", func(one *inclusionVector) { one.Index++ })
	add("index with another bit", func(one *inclusionVector) { one.Index ^= 2 })
	add("index - 1", func(one *inclusionVector) { one.Index-- })
	add("size * 2", func(one *inclusionVector) { one.Size *= 2 })
	add("size / 2", func(one *inclusionVector) { one.Size /= 2 })
	add("size + 1", func(one *inclusionVector) { one.Size++ })
	add("another leaf hash", func(one *inclusionVector) { one.LeafHash = flipped(one.LeafHash) })
	add("another root", func(one *inclusionVector) { one.Root = flipped(one.Root) })
	add("no root", func(one *inclusionVector) { one.Root = testonly.EmptyRootHash() })
	for says, proof := range variants(right.Proof, right.Root, right.LeafHash) {
		add(says, func(one *inclusionVector) { one.Proof = proof })
	}
	return found
}

func consistencyVariants(right consistencyVector) []consistencyVector {
	found := []consistencyVector{right}
	add := func(says string, change func(one *consistencyVector)) {
		one := right
		one.Says = says
		change(&one)
		found = append(found, one)
	}
	add("old size - 1", func(one *consistencyVector) { one.Size1-- })
	add("old size + 1", func(one *consistencyVector) { one.Size1++ })
	add("old size with another bit", func(one *consistencyVector) { one.Size1 ^= 2 })
	add("new size * 2", func(one *consistencyVector) { one.Size2 *= 2 })
	add("new size / 2", func(one *consistencyVector) { one.Size2 /= 2 })
	add("another old root", func(one *consistencyVector) { one.Root1 = flipped(one.Root1) })
	add("another new root", func(one *consistencyVector) { one.Root2 = flipped(one.Root2) })
	add("swapped roots", func(one *consistencyVector) { one.Root1, one.Root2 = one.Root2, one.Root1 })
	for says, proof := range variants(right.Proof, right.Root1, right.Root2) {
		add(says, func(one *consistencyVector) { one.Proof = proof })
	}
	return found
}

// variants are proofs near the right one; two hashes that stand nearby are put in front and behind.
func variants(right [][]byte, first, second []byte) map[string][][]byte {
	found := map[string][][]byte{
		"first in front":  append([][]byte{first}, right...),
		"second in front": append([][]byte{second}, right...),
		"first behind":    append(append([][]byte{}, right...), first),
		"second behind":   append(append([][]byte{}, right...), second),
		"empty behind":    append(append([][]byte{}, right...), []byte{}),
	}
	if len(right) == 0 {
		return found
	}
	found["none"] = nil
	found["cut"] = right[:len(right)-1]
	found["beheaded"] = right[1:]
	for i := range right {
		changed := append([][]byte{}, right...)
		changed[i] = flipped(changed[i])
		found["flipped "+string(rune('a'+i))] = changed
	}
	return found
}

func flipped(hash []byte) []byte {
	changed := append([]byte{}, hash...)
	changed[0] ^= 0x10
	return changed
}
