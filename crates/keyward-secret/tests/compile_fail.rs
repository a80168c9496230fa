//! What must not compile: printing, cloning, comparing, serialising or keeping a secret.

#[test]
fn misuse_does_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
