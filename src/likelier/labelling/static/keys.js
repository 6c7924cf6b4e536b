// Single keys on the page. They are ignored while text is typed or composed, with a modifier held, on repeat, while
// a dialog is open, and arrows also where they scroll.

const TYPING = "input, textarea, select, [contenteditable]";
const SCROLLS = "pre, .table";

export function keyOf(event) {
  if (event.defaultPrevented || event.isComposing || event.keyCode === 229 || event.repeat) return null;
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return null;
  const target = event.target instanceof Element ? event.target : document.body;
  if (target.closest(TYPING)) return null;
  // By place: digits lie under other signs on some keyboards.
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (digit) return digit[1];
  if (event.key.startsWith("Arrow") && target.closest(SCROLLS)) return null;
  if (event.key === "Enter" && target.closest("button, a, summary")) return null;
  return event.key.length === 1 ? event.key.toLowerCase() : event.key;
}

// `actions` are functions by key.
export function listen(actions) {
  document.addEventListener("keydown", (event) => {
    if (asking) return;
    const key = keyOf(event);
    const action = key === null ? undefined : actions()[key];
    if (!action) return;
    event.preventDefault();
    action();
  });
}

// Until the event of its closing has come, which is a moment after it has gone: a dialog opened meanwhile would take
// that event for its own.
let asking = false;

// Opens a dialog; resolves to the value of the button that closed it. Digits choose what carries their sign.
export async function ask(dialog) {
  if (asking) return "cancel";
  asking = true;
  return new Promise((done) => {
    dialog.returnValue = "cancel";
    const digits = (event) => {
      const key = keyOf(event) ?? (event.target.type === "radio" ? event.key : null);
      const sign = [...dialog.querySelectorAll("kbd")].find((kbd) => kbd.textContent === key);
      const control = sign?.closest("button") ?? sign?.closest("label")?.querySelector("input");
      if (!/^[1-9]$/.test(key ?? "") || !control) return;
      event.preventDefault();
      control.click();
      control.focus();
    };
    dialog.addEventListener("keydown", digits);
    dialog.addEventListener(
      "close",
      () => {
        dialog.removeEventListener("keydown", digits);
        asking = false;
        done(dialog.returnValue);
      },
      { once: true },
    );
    dialog.showModal();
  });
}
