"""The page and the service: drop a video, see who is fake and when.

    page or client --POST--> uploads --> store (SQLite) <-- pool --> worker process (detector)
                   <-- events, result, report --'

- **One process serves, others decode.** The server never opens a video. A slot of the pool is a
  thread with one warm worker process, which has the detector loaded and is confined as in
  `tellframe.sandbox`. It gets an open file, says how far it is, and answers in plain bytes that are
  checked; it is killed where it takes too long or nobody wants the result any more. What it does
  is one function: `worker.analyse(detector, name, descriptor, progress) -> Finding`.
- **What was accepted is on disk.** An upload is counted and hashed while it streams into a `.part`
  file, synced, renamed, and only then written into the table of jobs, whose commit is what 202
  means. At a start, files that no job owns are removed.
- **A job is queued, running, done or failed.** SQLite moves it in one transaction; a result is
  stored in the one that says `done`. At a start, running jobs are queued again. Each try counts, so
  that a file that takes the server down with it is given up after `Limits.attempts`.
- **Results belong to bytes, jobs to people.** A result is found by the SHA-256 of the file, of the
  weights, and the recipe: the same bytes are not analysed twice. Every upload is still a job of its
  own, with its own name, and deleting one takes nothing from another. With tokens, a job is seen
  with the token alone that brought it.
- **Uploads go after the analysis; results by age, and the oldest first by total size.**
- **The queue is bounded before the body is read**: who is refused with 429 has not uploaded a
  gigabyte for it.
- **Errors are problem+json** with a `code` that software can rely on, also inside failed jobs.
- **The page is the API's first client**: HTML, CSS and ES modules, no build step, no inline script,
  nothing from another host. It plays the browser's own copy of the file; the server keeps none.
- **Whose page may ask**: the Host header must be one that the server knows, and requests from other
  sites that change something are refused, so that a page elsewhere cannot use a service at home.
"""
