// What others publish as Go modules and the tests read from Go's module cache; none of it is kept here or compiled.
module govrun/published

go 1.26.4

require (
	filippo.io/mostly-harmless/ed25519vectors v0.0.0-20210322192420-30a2d7243a94
	github.com/c2sp/wycheproof v0.0.0-20260902155932-3fa63dd0344a
)
