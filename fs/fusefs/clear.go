package fusefs

// Close closes the session's descriptors. The mount ends with the last ones.
func (s Session) Close() {
	if s.Device != nil {
		s.Device.Close()
	}
	if s.File != nil {
		s.File.Close()
	}
}
