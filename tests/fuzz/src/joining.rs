//! Joining: what anybody may send to the port where machines join, what may answer there, and what may be pasted.

use joining::message::{Answer, Question};
use joining::{Token, TokenId};

/// An input is taken as each of them.
pub(crate) fn run(input: &[u8]) {
    if let Some((head, name)) = input.split_first_chunk()
        && let Ok(question) = Question::decode(head, name)
    {
        assert_eq!(question.encode().as_deref(), Ok(input), "a question has one form");
    }
    if let Some((head, body)) = input.split_first_chunk()
        && let Ok(answer) = Answer::decode(head, body)
        && let Ok(bytes) = answer.encode()
        && let Some((head, body)) = bytes.split_first_chunk()
    {
        assert_eq!(
            Answer::decode(head, body),
            Ok(answer),
            "what was understood can be said again"
        );
    }
    let text = String::from_utf8_lossy(input);
    if let Ok(token) = text.parse::<Token>() {
        assert_eq!(
            token.to_string(),
            text.to_ascii_lowercase(),
            "a token has one form"
        );
    }
    if let Ok(id) = text.parse::<TokenId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase(), "a number has one form");
    }
}
