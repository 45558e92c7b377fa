package settings

import "github.com/edgefleet/edgefleet/fleet/configfile"

// Load reads and checks the file at path. Every error is one line: "<path>:<line>: <field>: <what is wrong and wanted>".
func Load(path string) (Settings, error) {
	s := beforeFile()
	err := configfile.Load(path, &s, func() error {
		s = s.withDefaults()
		return s.check()
	})
	if err != nil {
		return Settings{}, err
	}
	return s, nil
}
