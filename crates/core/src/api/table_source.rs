//! The text of a table, and the table that is part of the binary.

/// The table for Cube AI, which is part of the binary.
const CUBE_AI: &str = include_str!("../../../../deploy/apis/cube-ai.yaml");

/// The text of a table, and the name of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSource {
    /// The name of the file, for errors.
    pub file: String,
    /// The text of the table, in YAML.
    pub text: String,
}

impl TableSource {
    /// Returns the tables that are part of the binary.
    pub fn embedded() -> Vec<Self> {
        vec![Self { file: "cube-ai.yaml (embedded)".to_owned(), text: CUBE_AI.to_owned() }]
    }
}
