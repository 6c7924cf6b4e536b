// The one button of the results page.

import { post } from "./server.js";

const button = document.getElementById("write");
const written = document.getElementById("written");

button.addEventListener("click", async () => {
  button.disabled = true;
  try {
    written.textContent = (await post("/api/export", {})).message;
  } catch (error) {
    written.textContent = error.message;
  } finally {
    button.disabled = false;
  }
});
