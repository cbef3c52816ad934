// Package rest sends requests to a tracking server, and to the stores that it
// names. It knows nothing of what MLflow keeps there: packages meta and artifact do.
//
// [Client] takes credentials from MLflow's own environment variables and files, and
// sends them to the tracking server and to no other host. 408, 429, 5xx and network
// errors are retried with backoff; a silence before and inside an answer has a limit;
// a URL or a redirect of a server's leads to no inner address that the user's settings
// don't name ([Reach]). What is longer than a bound is not read ([Decode],
// [Client.Answer]). [Settings] brings the same rules to another client's transport.
//
// Errors are *[Error] where a server answered, and match the standard library's
// sentinels: fs.ErrNotExist (404), fs.ErrPermission (401, 403).
package rest
