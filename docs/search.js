// Lets the search take flags and parts of names as they are typed: lunr reads `--flag` as "without flag", and a name with
// underscores is one word of its index, so `pin_memory` would not find `dataloader_pin_memory`.
const QUERY = 2 // kind of the message that asks the theme's search worker
const post = Worker.prototype.postMessage
Worker.prototype.postMessage = function (message, ...rest) {
  if (message?.type === QUERY && typeof message.data === "string") {
    const words = message.data.replace(/(^|\s)-+(?=\w)/g, "$1").replace(/(^|\s)(?=\w*_)/g, "$1*")
    message = { ...message, data: words }
  }
  return post.call(this, message, ...rest)
}
