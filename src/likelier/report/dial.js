"use strict";
// Without this script the page shows strength 1 and the table of all strengths; with it, the slider that chooses one.
(() => {
  const slider = document.querySelector("#strength");
  const parts = [...document.querySelectorAll("[data-at]")];
  const show = () => {
    for (const part of parts) {
      const here = part.dataset.at === slider.value;
      if (part.matches("tr")) part.setAttribute("aria-current", String(here));
      else part.toggleAttribute("hidden", !here);
      if (here && part.dataset.told) slider.setAttribute("aria-valuetext", part.dataset.told);
    }
  };
  slider.addEventListener("input", show);
  slider.closest(".turn").hidden = false;
  document.querySelector(".dial .still").hidden = true;
  show(); // some browsers put a slider back to where it was before the page was loaded anew
})();
