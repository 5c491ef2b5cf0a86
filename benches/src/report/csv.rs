use std::fmt::Write as _;

use serde_json::Value;

use crate::row::Row;

/// One line a row, the columns of the JSON, empty for null.
pub(super) fn render(rows: &[Row]) -> String {
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let Ok(Value::Object(fields)) = serde_json::to_value(row) else {
            continue;
        };
        if number == 0 {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            let _ = writeln!(text, "{}", names.join(","));
        }
        let values: Vec<_> = fields.values().map(cell).collect();
        let _ = writeln!(text, "{}", values.join(","));
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) if text.contains([',', '"', '\n']) => {
            format!("\"{}\"", text.replace('"', "\"\""))
        }
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::cell;

    #[test]
    fn cells_with_commas_are_quoted() {
        assert_eq!(cell(&json!("a,\"b\"")), "\"a,\"\"b\"\"\"");
        assert_eq!(cell(&json!(null)), "");
        assert_eq!(cell(&json!(12)), "12");
    }
}
