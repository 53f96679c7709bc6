//! The renderer held against templates of the shapes that models have. The templates are our own.

use webdancer_agent::conversation::Role;
use webdancer_train::chat::{self, Chat, Template};

use crate::support::{conversation, message};

/// As Qwen2.5's: a system message of its own where there is none.
const DEFAULT_SYSTEM: &str = "{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are kind.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == \"user\") or (message.role == \"system\" and not loop.first) or (message.role == \"assistant\" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
";

/// As Qwen3's: thoughts before the last question are left out, later ones set anew.
const THOUGHTS: &str = "{%- set ns = namespace(tools=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.tools and message.role == \"user\" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.tools = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == \"assistant\" %}
        {%- set thought = '' %}
        {%- set content = message.content %}
        {%- if '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or thought) %}
            {{- '<|im_start|>assistant\n<think>\n' + thought.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>assistant\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}";

/// Of another family.
const OTHER: &str = "{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n{{ message.content }}<|eot_id|>{% endfor %}";

fn of(source: &str) -> Result<(Chat, Option<chat::Difference>), String> {
    Chat::of_template(&Template::new(source, "m/chat_template.jinja")).map_err(|error| error.to_string())
}

#[test]
fn a_template_that_keeps_what_was_said_is_followed_byte_for_byte() {
    let (chat, difference) = of(DEFAULT_SYSTEM).unwrap();
    assert_eq!(difference, None);
    let messages = conversation("who?", "a page", "x");
    let template = Template::new(DEFAULT_SYSTEM, "t");
    assert_eq!(chat::text(&chat.segments(&messages)), template.render(&messages, false).unwrap());
    assert_eq!(chat::text(&chat.prompt(&messages[..4])), template.render(&messages[..4], true).unwrap());
    // The system message that it puts in where there is none.
    let asked = [message(Role::User, "who?")];
    let text = chat::text(&chat.prompt(&asked));
    assert_eq!(
        text,
        "<|im_start|>system\nYou are kind.<|im_end|>\n<|im_start|>user\nwho?<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(text, template.render(&asked, true).unwrap());
}

#[test]
fn a_template_that_sets_thoughts_otherwise_is_told_of_and_not_followed() {
    let (chat, difference) = of(THOUGHTS).unwrap();
    let told = difference.unwrap().to_string();
    assert!(told.starts_with("m/chat_template.jinja: the template renders past turns otherwise"), "{told}");
    assert!(told.contains(r#"ours goes on with "<tool_call>\n{"#), "{told}");
    let messages = conversation("who?", "a page", "x");
    assert_eq!(chat::text(&chat.segments(&messages)), chat::text(&Chat::default().segments(&messages)));
}

#[test]
fn a_template_of_another_family_is_refused() {
    let error = of(OTHER).unwrap_err();
    assert_eq!(error, "m/chat_template.jinja: is not of the ChatML family: it renders a user's message otherwise");
    let roles = DEFAULT_SYSTEM
        .replace("message.role + '\\n'", "message.role + ' '")
        .replace("message.role + '\n'", "message.role + ' '");
    assert!(of(&roles).unwrap_err().contains("is not of the ChatML family"));
}

#[test]
fn a_template_that_fails_or_does_not_end_is_an_error_of_one_line() {
    for (source, reason) in [
        ("{% if %}", "m/chat_template.jinja: the chat template: "),
        ("{{ raise_exception('No system role') }}", "No system role"),
        ("{% for a in range(10000) %}{% for b in range(10000) %}{{ b }}{% endfor %}{% endfor %}", "fuel"),
    ] {
        let error = of(source).unwrap_err();
        assert!(error.contains(reason) && !error.contains('\n'), "{error}");
    }
}

#[test]
fn a_folders_template_is_found_wherever_it_stands() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let found = || {
        Template::of_folder(folder.path()).map(|t| t.map(|t| t.render(&[], false).unwrap())).map_err(|e| e.to_string())
    };
    assert_eq!(found(), Ok(None));
    write("tokenizer_config.json", "{}");
    assert_eq!(found(), Ok(None));
    write("tokenizer_config.json", r#"{"chat_template": "one"}"#);
    assert_eq!(found(), Ok(Some("one".to_string())));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "a"}, {"name": "default", "template": "b"}]}"#,
    );
    assert_eq!(found(), Ok(Some("b".to_string())));
    write("tokenizer_config.json", r#"{"chat_template": 3}"#);
    assert!(
        found().unwrap_err().ends_with("tokenizer_config.json: chat_template is no text, and no list with a default")
    );
    write("chat_template.jinja", "file");
    assert_eq!(found(), Ok(Some("file".to_string())));
}
