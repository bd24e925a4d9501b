"""`/report`: a form for whoever saw something, without an account, a script or anything from elsewhere."""

from __future__ import annotations

from html import escape

CSP = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
_STYLE = """
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:40rem;margin:2rem auto;padding:0 1rem}
label{display:block;margin:1rem 0 .25rem;font-weight:600}input,select,textarea{font:inherit;width:100%;box-sizing:border-box;
padding:.5rem;border:1px solid #888;border-radius:.3rem}button{font:inherit;margin-top:1rem;padding:.5rem 1.2rem;border-radius:.3rem;
border:1px solid #555}.note{color:#666}.told{border-left:.3rem solid #2a7;padding:.5rem 1rem}.wrong{border-color:#c33}
.trap{position:absolute;left:-100rem}
"""
_KINDS = {
    "url": "the address of a file",
    "repository": "a repository (hf:owner/name)",
    "sha256": "a SHA-256 of a file",
    "magnet": "a magnet link",
}


def page(told: str = "", *, wrong: bool = False, values: dict[str, str] | None = None) -> str:
    """The form, with what is to be told above it.

    Args:
        told: one sentence for the reporter; any text.
        wrong: whether it is a refusal.
        values: what was filled in before, to be corrected.
    """
    given = values or {}
    box = f'<p class="told{" wrong" if wrong else ""}" role="status">{escape(told)}</p>' if told else ""
    options = "".join(
        f'<option value="{kind}"{" selected" if given.get("what") == kind else ""}>{escape(words)}</option>'
        for kind, words in _KINDS.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Report a leaked model</title><style>{_STYLE}</style></head><body>
<h1>Report a leaked model</h1>
<p>Did you see model weights where they should not be? Tell us where. You need no account, and you may stay unnamed.</p>
{box}
<form method="post" action="report" accept-charset="utf-8">
<label for="what">What do you have?</label><select id="what" name="what">{options}</select>
<label for="value">Where is it?</label>
<input id="value" name="value" required maxlength="4096" autocomplete="off" value="{escape(given.get("value", ""))}">
<label for="note">Anything else? <span class="note">(optional)</span></label>
<textarea id="note" name="note" rows="4" maxlength="4000">{escape(given.get("note", ""))}</textarea>
<label for="contact">How can we reach you? <span class="note">(optional)</span></label>
<input id="contact" name="contact" maxlength="200" value="{escape(given.get("contact", ""))}">
<p class="trap" aria-hidden="true"><label for="website">Leave this empty</label>
<input id="website" name="website" tabindex="-1" autocomplete="off"></p>
<button>Report it</button></form>
<p class="note">What you send is kept, and read by the people who look after the release. Please send no weights.</p>
</body></html>
"""
